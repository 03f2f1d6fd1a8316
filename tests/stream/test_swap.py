"""A model takes over from another: on trial for some users, and in the background for those who do not click."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from recsys.bundle import digest_of, save_model
from recsys.published import Bundles
from recsys.settings import WorkerSettings
from recsys.state import RecommendationList
from recsys.store import Store, Write
from stream.dead_letter import Record
from stream.processor import Processor
from stream.renewal import Renewal
from tests.conftest import publish, random_model
from tests.servers.redis import client_of
from tests.stream.processing import World, on_one_server_and_a_cluster, record
from tests.stream.world import World as LiveWorld
from tests.stream.world import clicks, on_embedded_servers

SECONDS = 15.0  # on a busy machine; a second or two on a quiet one
TRICKY = ["u", "a}b", "50%", "%7D", "with space", "ü"]


def clicks_of(users: list[str]) -> list[Record]:
    """Three clicks of each user."""
    return [
        record(user, f"item-{(5 * number + click) % 50:03d}", click, 3 * number + click)
        for number, user in enumerate(users)
        for click in range(3)
    ]


def test_users_on_trial_get_the_other_model_and_come_back_when_it_ends(
    run: Callable[..., None], bundles: Path, tmp_path: Path
) -> None:
    users = [f"user-{number}" for number in range(60)]

    async def body(world: World) -> None:
        await world.process(*clicks_of(users))
        directory = tmp_path / "trial"
        directory.mkdir()
        save_model(directory, random_model(items=55, units=12, seed=9))
        trial = Bundles(bundles).publish(directory, share=0.4)
        assert world.model.refresh()
        models = {user: world.model.served_to(user) for user in users}
        assert {each.version for each in models.values()} == {world.model.served.version, trial}
        outcome = await world.process(*(record(user, "item-009", 9, 1000 + i) for i, user in enumerate(users)))
        assert outcome.applied == len(users)
        assert outcome.rebuilt == sum(each.version == trial for each in models.values())
        for number, user in enumerate(users):
            state, served = await world.state(user), models[user]
            rows = [[(5 * number + click) % 50 for click in range(3)] + [9]]
            assert state.model == served.digest
            np.testing.assert_array_equal(state.hidden, served.scorer.advance(served.scorer.start(1), rows)[0])

        Bundles(bundles).rollback()
        assert world.model.refresh()
        await Renewal(world.processor, world.store).renew_all()
        for user in users:
            assert (await world.state(user)).model == world.model.served.digest

    run(body)


@on_one_server_and_a_cluster
def test_idle_users_are_renewed_as_their_next_click_would(run: Callable[..., None], bundles: Path) -> None:
    """States, lists and lives: whatever a user id looks like."""

    async def body(world: World) -> None:
        await world.process(*clicks_of(TRICKY))
        client = client_of(world.redis.url)
        keys = [world.store.key(kind, user) for user in TRICKY for kind in "sl"]
        for key in keys:
            client.pexpire(key, 1_000_000)
        publish(bundles, random_model(items=60, units=12, seed=5))
        assert world.model.refresh()
        assert await Renewal(world.processor, world.store).renew_all() == len(TRICKY)
        scorer = world.model.served.scorer
        for number, user in enumerate(TRICKY):
            state, ranked = await world.state(user), await world.list(user)
            hidden = scorer.advance(scorer.start(1), [[(5 * number + click) % 50 for click in range(3)]])
            np.testing.assert_array_equal(state.hidden, hidden[0])
            assert ranked is not None
            assert ranked.model == world.model.served.digest
            assert ranked.position == state.position
            np.testing.assert_array_equal(ranked.rows, scorer.top_k(hidden, 20)[0][0])
        assert all(0 < client.pttl(key) <= 1_000_000 for key in keys), "renewal does not make a visitor younger"
        assert await Renewal(world.processor, world.store).renew_all() == 0

    run(body)


def test_a_click_during_the_renewal_is_not_lost(run: Callable[..., None], bundles: Path) -> None:
    """The store is written between the reading and the writing of the renewal: the click stays."""

    async def body(world: World) -> None:
        await world.process(*clicks_of(["u"]))
        publish(bundles, random_model(items=60, units=12, seed=5))
        assert world.model.refresh()

        class Slow(Store):
            async def save(self, writes: Sequence[Write], *, keep_life: bool = False) -> set[str]:
                await world.process(record("u", "item-030", 20, 50))
                return await super().save(writes, keep_life=keep_life)

        async def no_letters(_: object) -> None:
            """None is expected."""

        slow = Slow(world.redis)
        renewing = Processor(world.model, slow, WorkerSettings(), no_letters)
        assert await renewing.renew(["u"]) == 0
        await slow.close()
        state = await world.state("u")
        assert [click.row for click in state.recent] == [0, 1, 2, 30]
        scorer = world.model.served.scorer
        np.testing.assert_array_equal(state.hidden, scorer.advance(scorer.start(1), [[0, 1, 2, 30]])[0])

    run(body)


@on_embedded_servers
def test_all_lists_follow_a_swap_and_a_rollback_and_none_is_missing_meanwhile(world: LiveWorld) -> None:
    """Nobody clicks after the first clicks, so it is the background that renews; each must be through in seconds."""
    with world.worker():
        world.produce(clicks(200, seed=8))
        old = Bundles(world.bundles).open()
        wait_for_lists(world, world.clean_run(200).keys(), old.digest)
        names = {name for name in world.contents() if name.startswith("l:")}
        new = publish(world.bundles, random_model(items=60, seed=9))
        assert wait_for_lists(world, names, digest_of(new)) < SECONDS
        assert Bundles(world.bundles).rollback() == old.version
        assert wait_for_lists(world, names, old.digest) < SECONDS
        assert world.contents() == world.clean_run(200), "as if nothing had been"


def wait_for_lists(world: LiveWorld, names: Iterable[str], digest: int) -> float:
    """Seconds until all lists with these names are of this model; none may be missing once it was there."""
    wanted = {name for name in names if name.startswith("l:")}
    began, there = time.monotonic(), set[str]()
    while time.monotonic() - began < 60:
        lists = {name: value for name, value in world.contents().items() if name.startswith("l:")}
        assert there <= lists.keys()
        there = set(lists)
        if wanted <= there and all(RecommendationList.unpack(lists[name]).model == digest for name in wanted):
            return time.monotonic() - began
        time.sleep(0.1)
    raise AssertionError("the lists have not changed")
