"""Micro-batches against a real store: what is applied, skipped and dead-lettered, and what that leaves behind."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.errors import UnavailableError
from recsys.position import Position, Progress
from recsys.published import Bundles
from recsys.serving import CurrentModel
from recsys.settings import WorkerSettings
from recsys.state import sequence
from recsys.store import Store, Write
from stream.dead_letter import Record
from stream.processor import ROUNDS, Processor
from tests.conftest import publish, random_model
from tests.stream.processing import START, World, on_one_server_and_a_cluster, record


def test_a_click_leaves_the_state_and_the_list_that_the_model_says(run: Callable[..., None]) -> None:
    async def body(world: World) -> None:
        outcome = await world.process(record("u", "item-003", 0, 0), record("u", "item-007", 5, 1))
        assert (outcome.applied, outcome.lists) == (2, 1)
        scorer = world.model.served.scorer
        expected = scorer.advance(scorer.start(1), [[3, 7]])
        np.testing.assert_array_equal((await world.state("u")).hidden, expected[0])
        rows, scores = scorer.top_k(expected, 20)[0]
        found = await world.list("u")
        assert found is not None
        assert found.rows.tolist() == rows.tolist()
        np.testing.assert_array_equal(found.scores, scores)
        assert (found.model, found.position.offset) == (world.model.served.digest, 1)
        assert found.event_time == START + 5000

    run(body)


def test_batches_of_any_size_leave_the_same(run: Callable[..., None], bundles: Path) -> None:
    """To the bit, lists too, with a model of the usual width."""
    publish(bundles, random_model(items=400, units=100, seed=2))
    records = [record(f"u{i % 37}", f"item-{(7 * i) % 400:03d}", 40 * i, i) for i in range(300)]
    left: list[list[tuple[bytes, bytes, bytes]]] = []

    def in_batches_of(size: int) -> None:
        async def body(world: World) -> None:
            for start in range(0, len(records), size):
                await world.process(*records[start : start + size])
            left.append([])
            for user in range(37):
                state, ranked = await world.state(f"u{user}"), await world.list(f"u{user}")
                assert ranked is not None
                left[-1].append((state.pack(), ranked.rows.tobytes(), ranked.scores.tobytes()))

        run(body)

    for size in (1, 7, 300):
        in_batches_of(size)
    assert left[0] == left[1] == left[2]


def test_redelivered_records_change_nothing(run: Callable[..., None]) -> None:
    async def body(world: World) -> None:
        records = [record("u", f"item-{i:03d}", i, i) for i in range(5)]
        await world.process(*records)
        before = (await world.state("u")).pack()
        outcome = await world.process(*records[2:])
        assert outcome.skipped == {"redelivered": 3}
        assert (await world.state("u")).pack() == before

    run(body)


def test_a_producers_duplicate_is_skipped(run: Callable[..., None]) -> None:
    async def body(world: World) -> None:
        await world.process(record("u", "item-001", 0, 0), record("u", "item-002", 1, 1))
        outcome = await world.process(record("u", "item-001", 0, 2), record("u", "item-002", 1, 3))
        assert outcome.skipped == {"duplicate": 2}

    run(body)


@on_one_server_and_a_cluster
def test_the_store_refuses_a_state_made_from_one_that_is_gone(run: Callable[..., None]) -> None:
    async def body(world: World) -> None:
        await world.process(record("u", "item-001", 0, 5))
        (read,) = await world.store.states(["u"])
        await world.process(record("u", "item-002", 1, 6))
        newer = await world.state("u")
        older = await world.state("u")
        older.progress = Progress(Position(0, 0, 7))
        for wrong in (read, None):
            assert await world.store.save([Write("u", wrong, older.pack(), b"")]) == {"u"}
        assert (await world.state("u")).position == newer.position
        assert await world.store.save([Write("u", wrong, newer.pack(), b"")]) == set()  # a command sent twice

    run(body)


class Rival:
    """A store in which another worker is quicker: it writes between the reading of a state and its writing."""

    def __init__(self, store: Store, steps: Sequence[Callable[[], Awaitable[object]]]) -> None:
        self._store, self._steps = store, list(steps)
        self.states, self.states_and_lists = store.states, store.states_and_lists

    async def save(self, writes: Sequence[Write]) -> set[str]:
        if writes and self._steps:
            await self._steps.pop(0)()
        return await self._store.save(writes)


@on_one_server_and_a_cluster
def test_workers_that_write_the_same_users_apply_every_click_once(run: Callable[..., None]) -> None:
    """A worker that has lost its partition, and does not know it, is at work beside the new owner."""
    log = [record(f"u{i % 3}", f"item-{i:03d}", i, i) for i in range(30)]
    late = record("u0", "item-003", -7200, 30)

    async def body(world: World) -> None:
        async def clean() -> list[bytes]:
            await world.process(*log, late)
            return [(await world.state(f"u{user}")).pack() for user in range(3)]

        expected = await clean()
        assert await world.store.forget([f"u{user}" for user in range(3)]) == 6
        world.letters.clear()
        await world.process(*log[:10])
        rival = Processor(world.model, world.store, WorkerSettings(), world._keep)
        steps = [lambda: rival.process(log[8:20]), lambda: rival.process(log[18:21])]
        world.processor = Processor(world.model, Rival(world.store, steps), WorkerSettings(), world._keep)  # type: ignore[arg-type]
        outcome = await world.process(*log[5:], late)
        assert outcome.stale == 3 + 1
        assert outcome.skipped == {"redelivered": 5 + 11}
        assert [letter.record.offset for letter in outcome.dead] == [30]
        assert [(await world.state(f"u{user}")).pack() for user in range(3)] == expected

    run(body)


def test_a_batch_that_is_refused_again_and_again_must_be_tried_later(run: Callable[..., None]) -> None:
    async def body(world: World) -> None:
        rival = Processor(world.model, world.store, WorkerSettings(), world._keep)
        steps = [partial(rival.process, [record("u", f"item-{i:03d}", i, i)]) for i in range(ROUNDS)]
        world.processor = Processor(world.model, Rival(world.store, steps), WorkerSettings(), world._keep)  # type: ignore[arg-type]
        batch = [record("u", f"item-{i:03d}", i, i) for i in range(ROUNDS + 1)]
        with pytest.raises(UnavailableError, match="others write them"):
            await world.process(*batch)
        outcome = await world.process(*batch)
        assert (outcome.applied, outcome.skipped) == (1, {"redelivered": ROUNDS})

    run(body)


def test_a_user_who_moves_between_partitions_loses_and_repeats_nothing(run: Callable[..., None]) -> None:
    """Partitions were added: clicks of the old one come again after the first of the new one."""

    async def body(world: World) -> None:
        old = [record("u", f"item-{i:03d}", i, i, partition=1) for i in range(6)]
        new = [record("u", f"item-{i:03d}", i, i, partition=9) for i in range(6, 9)]
        await world.process(*old[:4])
        await world.process(*new[:2])
        outcome = await world.process(*old[2:], *new)
        assert (outcome.applied, outcome.skipped) == (3, {"redelivered": 4})
        state = await world.state("u")
        assert [click.row for click in state.recent] == list(range(9))
        assert state.progress == Progress(Position(0, 9, 8), {1: 5})

    run(body)


@on_one_server_and_a_cluster
def test_topics_are_numbered_in_the_order_of_their_coming(run: Callable[..., None]) -> None:
    async def body(world: World) -> None:
        assert [await world.store.topic_number(identity) for identity in ("a", "b", "a", "c", "b")] == [0, 1, 0, 2, 1]
        left = world.life_ms(f"{world.redis.prefix}:topics")
        assert 7 * 86_400_000 < left <= 7 * 86_400_000 + 3_600_000

    run(body)


@on_one_server_and_a_cluster
def test_every_key_has_a_time_to_live(run: Callable[..., None]) -> None:
    async def body(world: World) -> None:
        await world.process(record("u}{%", "item-001", 0, 0))
        for kind in "sl":
            left = world.life_ms(world.store.key(kind, "u}{%"))
            assert 6 * 86_400_000 < left <= 7 * 86_400_000

    run(body)


def test_seen_items_are_left_out_by_option(run: Callable[..., None]) -> None:
    async def body(world: World) -> None:
        await world.process(*[record("u", f"item-{i:03d}", i, i) for i in range(10)])
        found = await world.list("u")
        assert found is not None
        assert len(found.rows) == 40  # 50 items, of which 10 were seen
        assert not set(found.rows.tolist()) & set(range(10))

    run(body, exclude_seen=True, list_length=50)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Record(b"u", b"\xff\xfe\x00", 0, 9, 0), "not_json"),
        (Record(b"u", b"[1, 2]", 0, 9, 0), "not_an_object"),
        (Record(b"u", None, 0, 9, 0), "not_json"),
        (Record(b"u", b'{"item_id": "a", "timestamp": 1}', 0, 9, 0), "user_id.missing"),
        (record("u", "item-001", -2e12, 9), "timestamp.negative"),
        (record("u", "item-001", 1e10, 9), "timestamp.out_of_range"),
        (record("u", "item-001", 1e9, 9), "timestamp.future"),
        (record("u", "item\n001", 0, 9), "item_id.control_character"),
        (record("u" * 300, "item-001", 0, 9), "user_id.too_long"),
        (record("u", "item-001", 0, 9, note="x" * 70_000), "too_large"),
        (record("u", "no-such-item", 0, 9), "unknown_item"),
        (Record(b"another", record("u", "item-001", 0, 9).value, 0, 9, 0), "key.mismatch"),
        (Record(None, record("u", "item-001", 0, 9).value, 0, 9, 0), "key.mismatch"),
    ],
)
def test_what_cannot_be_used_is_dead_lettered_and_the_rest_goes_on(
    run: Callable[..., None], bad: Record, reason: str
) -> None:
    async def body(world: World) -> None:
        outcome = await world.process(record("good", "item-001", 0, 8), bad, record("good", "item-002", 1, 10))
        assert outcome.applied == 2
        assert [letter.reason for letter in world.letters] == [reason]
        letter = json.loads(world.letters[0].encode("clicks"))
        assert (letter["reason"], letter["partition"], letter["offset"]) == (reason, 0, 9)

    run(body)


def test_a_click_too_late_is_dead_lettered_once(run: Callable[..., None]) -> None:
    async def body(world: World) -> None:
        late = record("u", "item-003", 10, 2)
        await world.process(record("u", "item-001", 0, 0), record("u", "item-002", 7200, 1), late)
        assert [letter.reason for letter in world.letters] == ["late"]
        outcome = await world.process(late)
        assert outcome.skipped == {"redelivered": 1}
        assert len(world.letters) == 1

    run(body)


def test_another_model_takes_over_and_rebuilds_the_state(run: Callable[..., None], bundles: Path) -> None:
    async def body(world: World) -> None:
        await world.process(record("u", "item-003", 0, 0), record("u", "item-007", 5, 1))
        publish(bundles, random_model(items=60, units=12, seed=5))
        assert world.model.refresh()
        outcome = await world.process(record("u", "item-009", 9, 2))
        assert outcome.rebuilt == 1
        scorer = world.model.served.scorer
        expected = scorer.advance(scorer.start(1), [[3, 7, 9]])[0]
        np.testing.assert_array_equal((await world.state("u")).hidden, expected)

    run(body)


def test_an_altered_bundle_is_refused_and_the_old_model_stays(run: Callable[..., None], bundles: Path) -> None:
    async def body(world: World) -> None:
        before = world.model.served
        version = publish(bundles, random_model(seed=5))
        weights = bundles / version / "weights.safetensors"
        data = bytearray(weights.read_bytes())
        data[-5] ^= 1
        weights.write_bytes(data)
        assert not world.model.refresh()
        assert world.model.served is before

    run(body)


def test_a_damaged_old_bundle_costs_the_old_sessions_and_nothing_else(run: Callable[..., None], bundles: Path) -> None:
    async def body(world: World) -> None:
        await world.process(record("u", "item-003", 0, 0))
        publish(bundles, random_model(seed=5))
        vocabulary = bundles / world.model.served.version / "vocabulary.json"
        world.model = CurrentModel(Bundles(bundles))  # a worker that starts with the new model and meets old states
        world.processor = Processor(world.model, world.store, WorkerSettings(), world._keep)
        vocabulary.write_bytes(vocabulary.read_bytes()[:-1])
        outcome = await world.process(record("u", "item-007", 5, 1))
        assert (outcome.applied, outcome.lost_states) == (1, 1)
        assert sequence((await world.state("u")).recent, world.model.served.rule) == [7]

    run(body)


def test_a_session_of_unknown_items_alone_has_no_list(run: Callable[..., None]) -> None:
    async def body(world: World) -> None:
        await world.process(record("u", "item-003", 0, 0))
        assert await world.list("u") is not None
        await world.process(record("u", "never seen", 7200, 1))
        assert await world.list("u") is None

    run(body)


def test_a_state_that_cannot_be_read_begins_anew(run: Callable[..., None]) -> None:
    async def body(world: World) -> None:
        await world.store._redis.set(world.store.key("s", "u"), b"garbage")
        outcome = await world.process(record("u", "item-001", 0, 0))
        assert (outcome.applied, outcome.lost_states) == (1, 1)
        assert sequence((await world.state("u")).recent, world.model.served.rule) == [1]

    run(body)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)), min_size=1, max_size=20))
def test_fuzzed_records_are_all_accounted_for(run: Callable[..., None], values: list[bytes]) -> None:
    async def body(world: World) -> None:
        outcome = await world.process(*[Record(b"u", value, 0, offset, 0) for offset, value in enumerate(values)])
        assert len(outcome.dead) == len(values)  # none of them is an event of user "u"

    run(body)


EVENT_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.one_of(st.text(max_size=5), st.integers(), st.none(), st.lists(st.integers(), max_size=1)),
        "item_id": st.one_of(
            st.sampled_from(["item-001", "item-002"]), st.text(max_size=5), st.floats(allow_nan=False)
        ),
        "timestamp": st.one_of(st.integers(-(10**15), 10**15), st.text(max_size=30), st.booleans(), st.none()),
        "event_type": st.one_of(st.text(max_size=5), st.integers()),
        "context": st.one_of(st.dictionaries(st.text(max_size=3), st.integers()), st.integers()),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EVENT_FIELDS, min_size=1, max_size=20))
def test_fuzzed_events_are_all_accounted_for(run: Callable[..., None], events: list[dict[str, Any]]) -> None:
    records = [
        Record(str(event.get("user_id", "")).encode(), json.dumps(event).encode(), 0, offset, 0)
        for offset, event in enumerate(events)
    ]

    async def body(world: World) -> None:
        await world.process(*records)  # asserts that the counts add up
        assert {letter.record.offset for letter in world.letters} <= {record.offset for record in records}

    run(body)
