"""Bundles: what is fetched goes through in order, and nothing is committed that is not done."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from types import SimpleNamespace
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition
from faust.types import TP
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stream.transport import Bundle, Transport, spaced

PARTITIONS = [TP("clicks", partition) for partition in range(3)]
ROOM = 6


def record(partition: TP, offset: int) -> Any:
    return ConsumerRecord(*partition, offset, 1_700_000_000_000 + offset, 0, b"key", b"value", None, 3, 5, ())


class Books(RuleBasedStateMachine):
    """Fetches, work, acknowledgements, commits, rebalances and seeks in any order, on the real consumer's books.

    Only its connection is not there. Offsets have gaps, as after compaction. ``log`` has the offsets that the broker
    keeps, ``committed`` what it has heard, ``worked`` what the worker has done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.start())

    async def start(self) -> None:
        app: Any = faust.App("test", broker="kafka://127.0.0.1:1", broker_max_poll_records=ROOM, web_enabled=False)
        app.transport = Transport([app.conf.broker[0]], app)
        app.topics._acking_topics.add("clicks")
        self.consumer = app.transport.create_consumer(
            callback=app.topics.on_message, on_partitions_revoked=self.revoked, on_partitions_assigned=self.revoked
        )

    async def revoked(self, *_: Any) -> None:
        """What Faust does: its queue is cleared, the work in hand ends, and what is done is committed."""
        self.fetch(set(PARTITIONS), ROOM)  # was under way
        self.waiting.clear()
        self.messages.clear()
        self.finish()
        self.commit()

    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed: int) -> None:
        chance = random.Random(seed)
        self.log = {partition: sorted(chance.sample(range(300), 200)) for partition in PARTITIONS}
        self.position = dict.fromkeys(PARTITIONS, 0)
        self.committed = dict.fromkeys(PARTITIONS, 0)
        self.worked: dict[TP, set[int]] = {partition: set() for partition in PARTITIONS}
        self.waiting: deque[tuple[TP, list[int]]] = deque()
        self.hand: list[Bundle] = []
        self.messages: deque[Any] = deque()

    @rule(partitions=st.sets(st.sampled_from(PARTITIONS), min_size=1), count=st.integers(1, 5))
    def fetch(self, partitions: set[TP], count: int) -> None:
        fetched = {}
        for partition in partitions:
            offsets = [offset for offset in self.log[partition] if offset >= self.position[partition]][:count]
            if offsets:
                self.position[partition] = offsets[-1] + 1
                fetched[partition] = [record(partition, offset) for offset in offsets]
                self.waiting.append((partition, offsets))
        if fetched:
            first = next(iter(fetched))
            message = self.consumer._to_message(first, fetched)
            assert message.offset >= (self.consumer._read_offset[first] or 0)  # or else Faust would drop it
            self.consumer._read_offset[first] = message.offset  # as Faust notes once it is in the queue
            self.messages.append(message)

    @rule(partition=st.sampled_from(PARTITIONS))
    def fetch_anew(self, partition: TP) -> None:
        """Faust drops what ends before where it has read to."""
        read = self.consumer._read_offset[partition] or 0
        offsets = [offset for offset in self.log[partition] if offset < read][-3:]
        if offsets:
            message = self.consumer._to_message(partition, {partition: [record(partition, each) for each in offsets]})
            assert message.offset >= read

    @precondition(lambda self: not self.hand)
    @rule(few=st.integers(1, 8), more=st.integers(0, 8))
    def take(self, few: int, more: int) -> None:
        size = sum(len(offsets) for _, offsets in self.waiting)
        self.hand = self.consumer.take(few, few + more)
        expected = [self.waiting.popleft() for _ in self.hand]  # in order, none left out
        assert [(bundle.tp, [each.offset for each in bundle.records]) for bundle in self.hand] == expected
        assert bool(self.hand) == bool(size)
        most = few if size <= few else few + more
        assert len(self.hand) <= 1 or sum(len(bundle.records) for bundle in self.hand) <= most

    @rule()
    def finish(self) -> None:
        for bundle in self.hand:
            self.worked[bundle.tp] |= {each.offset for each in bundle.records}
            bundle.done = True
        self.hand = []

    @precondition(lambda self: self.messages)
    @rule()
    def acknowledge(self) -> None:
        """Faust does so when the worker asks for the next one; but also when its task ends, with the work not done."""
        self.consumer.ack(self.messages.popleft())

    @rule()
    def commit(self) -> None:
        found = self.consumer._filter_committable_offsets(list(self.consumer._filter_tps_with_pending_acks()))
        self.consumer._committed_offset.update(found)
        for partition, offset in found.items():
            assert offset > self.committed[partition]
            self.committed[partition] = offset

    @rule(kept=st.sets(st.sampled_from(PARTITIONS)))
    def rebalance(self, kept: set[TP]) -> None:
        """All partitions are taken away; those that come back begin where they were committed, the others elsewhere."""
        self.loop.run_until_complete(self.consumer.on_partitions_revoked(set(PARTITIONS)))
        assert self.consumer._has_room.is_set()
        for partition in PARTITIONS:
            if partition not in kept:  # another worker does some of it
                todo = [each for each in self.log[partition] if each >= self.committed[partition]][:7]
                self.worked[partition] |= set(todo)
                self.committed[partition] = todo[-1] + 1 if todo else self.committed[partition]
            self.seek(partition)

    def seek(self, partition: TP) -> None:
        self.position[partition] = self.committed[partition]
        self.consumer._read_offset[partition] = self.committed[partition] or None
        self.consumer._committed_offset[partition] = self.committed[partition] or None

    @rule(partition=st.sampled_from(PARTITIONS))
    def seek_back(self, partition: TP) -> None:
        """Faust does when a fetch comes back in the middle of a rebalance: what waits will be fetched again."""
        self.seek(partition)

    @invariant()
    def nothing_is_committed_that_is_not_done(self) -> None:
        for partition in PARTITIONS:
            before = {offset for offset in self.log[partition] if offset < self.committed[partition]}
            assert before <= self.worked[partition]

    @invariant()
    def there_is_room_for_more_while_few_records_wait(self) -> None:
        waiting = sum(len(offsets) for _, offsets in self.waiting)
        assert self.consumer._has_room.is_set() == (waiting < ROOM)

    def teardown(self) -> None:
        """In the end all is committed: no bundle is forgotten, and none stands in the way."""
        self.finish()
        for _ in range(200):
            self.fetch(set(PARTITIONS), 5)
            while self.waiting:
                self.take(8, 0)
                self.finish()
        self.commit()
        for partition in PARTITIONS:
            assert self.committed[partition] == self.log[partition][-1] + 1
            assert not self.consumer._delivered.get(partition)
        self.loop.close()


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_partition_that_has_no_position_yet_is_not_looked_at() -> None:
    """In the midst of a rebalance; Faust's own look would end the worker."""

    async def body() -> None:
        app: Any = faust.App("test", broker="kafka://127.0.0.1:1", web_enabled=False)
        app.transport = Transport([app.conf.broker[0]], app)
        nothing: Any = None
        consumer = app.transport.create_consumer(
            callback=app.topics.on_message, on_partitions_revoked=nothing, on_partitions_assigned=nothing
        )
        thread = consumer._new_consumer_thread()
        thread._consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1")
        partition, subscriptions = TopicPartition("clicks", 0), thread._consumer._subscription
        thread._consumer._fetcher = SimpleNamespace(_subscriptions=subscriptions)
        thread.time_started = 0.0
        thread.verify_event_path(1e6, TP("clicks", 0))
        subscriptions.subscribe({"clicks"})
        thread.verify_event_path(1e6, TP("clicks", 0))
        subscriptions.assign_from_subscribed({partition})
        thread.verify_event_path(1e6, TP("clicks", 0))
        subscriptions.subscription.assignment.state_value(partition).reset_to(7)
        thread.verify_event_path(1e6, TP("clicks", 0))
        thread.verify_event_path(1e6, TP("clicks", 1))
        thread._consumer._closed = True  # it was never opened

    asyncio.run(body())


def test_a_broker_is_asked_anew_after_a_while_and_each_broker_for_itself() -> None:
    began: list[tuple[int, float]] = []

    async def fetch(_: Any, node: int, __: Any) -> bool:
        began.append((node, asyncio.get_running_loop().time()))
        return True

    async def body() -> None:
        fetch_later = spaced(fetch, lambda: 0.2)
        assert await fetch_later(None, 1, None)
        again = asyncio.create_task(fetch_later(None, 1, None))
        assert await fetch_later(None, 2, None)
        assert await again
        closing = asyncio.create_task(fetch_later(None, 1, None))
        await asyncio.sleep(0)
        closing.cancel()
        assert not await closing

    asyncio.run(body())
    assert [node for node, _ in began] == [1, 2, 1]
    assert began[2][1] - began[0][1] >= 0.199
