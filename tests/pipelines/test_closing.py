"""Closing bit by bit gives what the rule makes of the whole log, whatever the order of arrival within the lateness."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import shards
from pipelines.live.arrivals import CLICKS
from pipelines.live.closing import Closing, Standing, close
from recsys.columns import hash_event_ids
from recsys.sessions import SessionRule

GAP = 100
LONG = 1 << 40
some = settings(max_examples=40, deadline=None)
Click = tuple[int, str, str, str, str]  # time, user, item, type, event id
Session = tuple[str, tuple[tuple[int, str, str], ...]]


def table(clicks: list[Click]) -> pa.Table:
    rows = [(*click, 0, offset) for offset, click in enumerate(clicks)]
    columns = zip(*rows, strict=True) if rows else ([] for _ in CLICKS)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, CLICKS, strict=True)], schema=CLICKS
    )


def sessions_of(closing: Closing) -> list[Session]:
    found: dict[tuple[str, int], list[tuple[int, str, str]]] = {}
    for click, start in zip(closing.clicks.to_pylist(), closing.starts.tolist(), strict=True):
        found.setdefault((click["user"], start), []).append((click["time"], click["item"], click["type"]))
    return [(user, tuple(clicks)) for (user, _), clicks in found.items()]


def whole(log: list[Click]) -> tuple[list[Session], int]:
    """All sessions and the number of duplicates, as batch cuts them."""
    clicks = table(log)
    ids = pa.array(hash_event_ids(clicks["event_id"].combine_chunks()))
    columns = clicks.select(["user", "item", "time", "type"]).append_column("event_id", ids)
    cut = shards.cut(columns, SessionRule(GAP, collapse_repeats=False))
    made, items, types = cut.made, cut.items.to_pylist(), cut.types.to_pylist()
    events = [
        (time, items[item], types[kind])
        for time, item, kind in zip(
            made.sessions.times.tolist(), made.sessions.items.tolist(), made.sessions.types.tolist(), strict=True
        )
    ]
    bounds = zip(made.sessions.starts[:-1].tolist(), made.sessions.starts[1:].tolist(), strict=True)
    sessions = [(user, tuple(events[a:b])) for user, (a, b) in zip(cut.users.to_pylist(), bounds, strict=True)]
    return sessions, made.duplicates


@dataclass
class Streamed:
    sessions: list[Session]
    late: list[Click]
    duplicates: int


def stream(arrivals: list[list[Click]], known: list[int], remember: int = LONG) -> Streamed:
    """Batches of clicks, each followed by a closing up to the time known then; at last up to the end of time."""
    standing, result = Standing(), Streamed([], [], 0)
    for clicks, until in [*zip(arrivals, known, strict=True), ([], LONG)]:
        closing = close(standing, table(clicks), until, GAP, remember)
        standing = closing.standing
        result.sessions += sessions_of(closing)
        result.late += [tuple(click.values())[:5] for click in closing.late.to_pylist()]
        result.duplicates += closing.duplicates
        assert (closing.next_ms is None) == (not len(standing.clicks))
    return result


clicks = st.tuples(
    st.integers(0, 600),
    st.sampled_from(["u", "v", "w"]),
    st.sampled_from("abc"),
    st.sampled_from(["view", "cart"]),
    st.sampled_from(["", "", "", "1", "2"]),
)


@some
@given(st.lists(clicks, max_size=40), st.integers(0, 300), st.data())
def test_any_arrival_within_the_lateness_gives_the_sessions_of_the_batch(
    log: list[Click], lateness: int, data: st.DataObject
) -> None:
    # A click that comes at most the lateness after its time, in a world whose clock is the newest time seen.
    delays = data.draw(st.lists(st.integers(0, lateness), min_size=len(log), max_size=len(log)))
    order = sorted(range(len(log)), key=lambda place: log[place][0] + delays[place])
    batches, known, newest = [], [], 0
    size = data.draw(st.integers(1, 5))
    for first in range(0, len(order), size):
        batch = [log[place] for place in order[first : first + size]]
        newest = max([newest, *(click[0] for click in batch)])
        batches.append(batch)
        known.append(newest - lateness)
    made = stream(batches, known)
    sessions, duplicates = whole(log)
    assert sorted(made.sessions) == sorted(sessions)
    assert made.late == []
    assert made.duplicates == duplicates


@some
@given(st.lists(st.tuples(st.lists(clicks, max_size=6), st.integers(0, 700)), max_size=8))
def test_whatever_comes_when_every_click_has_one_fate_and_the_others_make_the_sessions_of_the_batch(
    steps: list[tuple[list[Click], int]],
) -> None:
    log = [click for batch, _ in steps for click in batch]
    made = stream([batch for batch, _ in steps], [until for _, until in steps])
    assert sum(len(clicks) for _, clicks in made.sessions) + made.duplicates + len(made.late) == len(log)
    rest = list(log)
    for click in made.late:
        rest.remove(click)
    assert sorted(made.sessions) == sorted(whole(rest)[0])


@some
@given(st.lists(clicks, max_size=12), st.integers(0, 700))
def test_it_is_said_when_the_next_session_can_be_closed_and_nothing_goes_before(log: list[Click], until: int) -> None:
    closing = close(Standing(), table(log), until, GAP, LONG)
    if closing.next_ms is not None:
        before, then = (
            close(closing.standing, table([]), time, GAP, LONG) for time in (closing.next_ms - 1, closing.next_ms)
        )
        assert before.sessions == 0
        assert len(then.standing.clicks) < len(closing.standing.clicks)


def test_a_session_is_closed_one_millisecond_after_the_gap_and_not_before() -> None:
    log = [(0, "u", "a", "view", ""), (100, "u", "b", "view", ""), (201, "u", "c", "view", "")]
    assert close(Standing(), table(log), 200, GAP, LONG).sessions == 0
    closing = close(Standing(), table(log), 201, GAP, LONG)
    assert sessions_of(closing) == [("u", ((0, "a", "view"), (100, "b", "view")))]
    assert [click["item"] for click in closing.standing.clicks.to_pylist()] == ["c"]
    assert closing.next_ms == 302


def test_an_event_id_is_known_for_a_while_after_its_session_was_closed() -> None:
    first, again = (0, "u", "a", "view", "7"), (500, "u", "b", "view", "7")
    for remember, duplicates in ((500, 1), (299, 0)):
        made = stream([[first], [again]], [300, 300], remember)
        assert made.duplicates == duplicates
        assert len(made.sessions) == 2 - duplicates
