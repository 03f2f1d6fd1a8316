"""A Redis Cluster holds what one server would, whatever becomes of its slots and nodes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot

from recsys.errors import UnavailableError
from recsys.settings import RedisSettings
from recsys.store import Store, Write
from recsys.store_cluster import Cluster
from stream.dead_letter import Record
from tests.servers.pairs import EmbeddedServers
from tests.servers.presence import where_present
from tests.servers.redis_cluster import RedisCluster
from tests.stream.conftest import make_world
from tests.stream.world import START, World, clicks, wait_until_dealt_with


@pytest.fixture
def one(embedded_servers: EmbeddedServers, bundles: Path, tmp_path: Path) -> World:
    """Topics and keys of a test's own, on one server."""
    return make_world(embedded_servers, bundles, tmp_path)


@pytest.fixture
def many(broker: str, cluster_url: str, bundles: Path, tmp_path: Path) -> World:
    """The same on a cluster."""
    return make_world(EmbeddedServers(broker, cluster_url), bundles, tmp_path)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Another cluster, whose first node has a replica until the last test here kills the node."""
    with where_present():
        cluster = RedisCluster(tmp_path_factory.mktemp("followed"), replica=True)
    with cluster:
        yield cluster


def user_of(node: int) -> str:
    """A user whose slot is the node's in the beginning."""
    return next(user for user in map(str, range(100)) if key_slot(user.encode()) * 3 // SLOTS == node)


def test_states_and_lists_are_the_same_to_the_bit(one: World, many: World) -> None:
    records = [
        Record(user.encode(), value, 0, offset, START) for offset, (user, value) in enumerate(clicks(400, seed=1))
    ]
    expected, letters = one.clean_run_of(records)
    assert many.clean_run_of(records) == (expected, letters)
    assert len(expected) > 30


def test_slots_that_move_while_clicks_come_cost_none(one: World, many: World, redis_cluster: RedisCluster) -> None:
    """Users whose keys are on their way, who have left, and who are new where a slot moves."""
    made = clicks(600, seed=2, users=30)
    with many.worker() as worker:
        with many.producing(made, pause=0.005):
            wait_until_dealt_with(worker, 50)
            for user in range(8):
                redis_cluster.move(key_slot(f"user-{user}".encode()), pause=0.06)
        many.wait_for(one.clean_run_of(many.all_records())[0])
        assert "Traceback" not in worker.log.read_text()
    asyncio.run(all_users_are_found(many, {user for user, value in made if value != b"not json"}))


async def all_users_are_found(world: World, expected: set[str]) -> None:
    """Wherever their slots went."""
    store = Store(RedisSettings(url=world.store, prefix=world.prefix))
    assert {user async for users in store.users(10) for user in users} == expected
    keys = len(world.contents())
    assert await store.forget(sorted(expected)) == keys
    assert not world.contents()
    await store.close()


def test_a_new_user_in_a_slot_that_moves_waits_for_the_move(redis_cluster: RedisCluster) -> None:
    async def body() -> None:
        store = Store(RedisSettings(url=redis_cluster.url, prefix=uuid.uuid4().hex))
        await store.ping()
        slot = key_slot(b"new")
        giver, taker, taker_id = redis_cluster.begin_to_move(slot)
        assert await store.states(["new"]) == [None]
        saving = asyncio.create_task(store.save([Write("new", None, b"state", b"list")]))
        await asyncio.sleep(0.2)
        assert not saving.done()
        for client in (taker, giver):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", taker_id)
        assert await saving == set()
        assert await store.states_and_lists(["new", "nobody"]) == ([b"state", None], [b"list", None])
        await store.close()

    asyncio.run(body())


def test_a_user_who_moves_while_users_are_counted_is_found(redis_cluster: RedisCluster) -> None:
    async def body() -> None:
        store = Store(RedisSettings(url=redis_cluster.url, prefix=uuid.uuid4().hex))
        here, there = user_of(0), user_of(2)
        assert await store.save([Write(user, None, b"state", b"") for user in (here, there)]) == set()
        found = set()
        async for users in store.users(10_000):
            found |= set(users)
            if users == [here] and there not in found:  # to a node that has been looked through
                await asyncio.to_thread(redis_cluster.move, key_slot(there.encode()), pause=0)
        assert found == {here, there}
        await store.close()

    asyncio.run(body())


def test_a_store_that_is_first_asked_for_two_things_at_a_time_leaves_no_connection(redis_cluster: RedisCluster) -> None:
    async def body() -> None:
        store = Store(RedisSettings(url=redis_cluster.url, prefix=uuid.uuid4().hex))
        clients = [redis_cluster.client(node) for node in redis_cluster.primaries]
        before = [len(client.client_list()) for client in clients]
        await asyncio.gather(store.states(["a", "b", "c"]), store.ping())
        await store.close()
        deadline = time.monotonic() + 5
        while [len(client.client_list()) for client in clients] != before:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    asyncio.run(body())


def test_scripts_that_a_node_has_forgotten_are_told_again(redis_cluster: RedisCluster) -> None:
    async def body() -> None:
        store = Store(RedisSettings(url=redis_cluster.url, prefix=uuid.uuid4().hex))
        for state in (b"one", b"two"):
            for node in redis_cluster.primaries:
                redis_cluster.client(node).script_flush()
            read = None if state == b"one" else b"one"
            assert await store.save([Write(f"u{user}", read, state, b"") for user in range(20)]) == set()
        await store.close()

    asyncio.run(body())


def test_a_write_counts_when_a_replica_has_it(followed: RedisCluster) -> None:
    async def body() -> None:
        store = Store(RedisSettings(url=followed.url, timeout_seconds=0.6))
        mine, other = (Write(user_of(node), None, b"state", b"list") for node in (0, 1))
        assert followed.replica is not None
        with followed.replica.frozen():
            assert await store.save([other]) == set()
            with pytest.raises(UnavailableError, match="no replica of"):
                await store.save([mine])
        assert await store.save([mine]) == set()
        await store.close()

    asyncio.run(body())


def test_a_node_that_dies_takes_no_click_with_it(
    one: World, followed: RedisCluster, broker: str, bundles: Path, tmp_path: Path
) -> None:
    """Its replica takes over, which has never seen the scripts."""
    world = make_world(EmbeddedServers(broker, followed.url), bundles, tmp_path)
    made = clicks(600, seed=3)
    with world.worker() as worker:
        with world.producing(made, pause=0.003):
            wait_until_dealt_with(worker, 100)
            followed.primaries[0].kill()
        world.wait_until_committed()
        world.store = followed.primaries[1].url
        world.wait_for(one.clean_run_of(world.all_records())[0])
        assert "does not answer" in worker.log.read_text()


def test_a_node_that_is_cut_off_from_the_others_is_believed_no_more(followed: RedisCluster) -> None:
    """It says for ever that the slots are its own, and that the cluster is down."""
    deadline = time.monotonic() + 60

    def wait_until(is_so: Callable[[], bool]) -> None:
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    async def body() -> None:
        first = followed.primaries[0]
        first.kill()
        wait_until(lambda: followed.owner(0)[0] != first)
        first.start()
        wait_until(lambda: followed.owner(0)[1] == 1)
        owner, user = followed.owner(0)[0], user_of(0)
        store = Store(RedisSettings(url=owner.url, timeout_seconds=0.6, prefix=uuid.uuid4().hex))
        while True:  # a replica that has only just begun to follow may be late on a busy machine
            try:
                assert await store.save([Write(user, None, b"state", b"list")]) == set()
            except UnavailableError:
                assert time.monotonic() < deadline
            else:
                break
        assert isinstance(store._servers, Cluster)
        nodes = store._servers._nodes
        nodes |= {each: nodes.pop(each) for each in [*nodes] if each[1] != owner.port}  # it is asked before all others
        followed.cut_off(owner)
        wait_until(lambda: followed.owner(0)[0] == first)
        wait_until(lambda: all(followed.is_up(node) for node in followed.primaries))
        with pytest.raises(UnavailableError, match="The cluster is down"):
            await store.states([user])
        assert await store.states([user]) == [b"state"]
        await store.close()

    asyncio.run(body())
