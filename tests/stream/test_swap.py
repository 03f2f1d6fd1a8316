"""A model takes over from another: on trial for some users, and in the background for those who do not click."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import redis

from recsys.bundle import Bundles, save_model
from recsys.settings import WorkerSettings
from recsys.store import Store, Write
from stream.dead_letter import Record
from stream.processor import Processor
from stream.renewal import Renewal
from tests.conftest import publish, random_model
from tests.stream.processing import World, record

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


def test_idle_users_are_renewed_as_their_next_click_would(run: Callable[..., None], bundles: Path) -> None:
    """States, lists and lives: whatever a user id looks like."""

    async def body(world: World) -> None:
        await world.process(*clicks_of(TRICKY))
        client = redis.Redis.from_url(world.redis.url)
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
