"""The click topic is kept in an archive, each record once.

Where to go on is what the archive itself says: its position moves in the same step in which files come, so a process
that is killed at any moment leaves an archive from which the next goes on. Nothing is committed to the broker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from recsys.archive import Archive, Counts, Position
from recsys.errors import RecsysError, SettingsError, UnavailableError
from recsys.pseudonyms import Pseudonyms
from recsys.reading import REQUEST_SECONDS, Place, away, consumer_of, read_ends
from recsys.service_log import announce
from recsys.settings import Settings
from stream.harvest import Harvest
from stream.topic import START_SECONDS, Topic

log = logging.getLogger(__name__)

POLL_RECORDS, POLL_SECONDS = 200, 0.2  # of a megabyte at most each
QUEUE_KIB = 16 << 10  # that the client reads ahead
WATCH_SECONDS = 2.0
MIB = 1 << 20
_FATAL = (KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_OR_PART)


class Archiver:
    """Keeps the topic of ``settings`` in an archive that this process holds."""

    def __init__(self, settings: Settings, archive: Archive) -> None:
        self._settings, self._kafka, self._archive = settings, settings.kafka, archive
        pseudonyms = Pseudonyms.of_settings(settings.privacy)
        self._harvest = Harvest(self._kafka.topic, pseudonyms)
        self._topic = Topic(self._kafka)
        self._position = self._begin(None if pseudonyms is None else pseudonyms.key)
        self._next: dict[int, int] = {}
        self._seen = self._looked = time.monotonic()
        self.counts = Counts()

    def run(self, stop: Callable[[], bool], *, until_now: bool = False) -> None:
        """Work until ``stop`` says so, or with ``until_now`` up to where the topic ends now.

        Raises:
            UnavailableError: the broker stays away, or the topic has been created anew; what was read is kept.
            RecsysError: the topic does not go on where the archive ends.
        """
        places = self._places()
        goal = {partition: end for partition, (_, end) in places.items()} if until_now else None
        options: dict[str, Any] = {"auto_offset_reset": "error", "queued_max_messages_kbytes": QUEUE_KIB}
        consumer = consumer_of(self._kafka, f"{self._kafka.group}.archive", **options)
        try:
            self._assign(consumer)
            announce(f"archive: {self._archive.path}: reading {len(places)} partitions of {self._kafka.topic}")
            while not stop() and not self._reached(goal):
                self.take(consumer.consume(POLL_RECORDS, POLL_SECONDS))
                full = self._harvest.size >= self._settings.archive.flush_mib * MIB
                if full or self._harvest.age >= self._settings.archive.flush_seconds:
                    self._flush(consumer)
                self._look(consumer)
            self._flush(consumer)
        except (UnavailableError, KafkaException) as error:
            self._flush(consumer)  # the topic may be gone
            raise error if isinstance(error, UnavailableError) else away(self._kafka, error) from None
        finally:
            consumer.close()

    def _begin(self, key: str | None) -> Position:
        """The position to go on from; its offsets are void if the topic is another one than before."""
        position, where = self._archive.position, self._archive.path
        if position is not None and position.topic != self._kafka.topic:
            raise SettingsError(f"settings: kafka.topic: {where} keeps the topic {position.topic}")
        if position is not None and position.key != key:
            kept = "in clear" if position.key is None else f"hashed by the key {position.key}"
            raise SettingsError(f"settings: privacy.key: {where} has user ids {kept}")
        read_ends(self._kafka, self._kafka.topic)  # says so where there is no topic
        identity, epoch = self._topic.ask_identity(START_SECONDS), self._settings.worker.epoch
        if position is None:
            return Position(topic=self._kafka.topic, topic_id=identity, epoch=epoch, key=key)
        known: dict[str, Any] = {"topic_id": identity or position.topic_id, "epoch": max(epoch, position.epoch)}
        if epoch > position.epoch or (position.topic_id or identity) != known["topic_id"]:
            log.warning("the topic has been created anew and is read from its beginning")
            known["offsets"] = {}
        return position.model_copy(update=known)

    def _places(self) -> dict[int, Place]:
        """Where each partition begins and ends; sets where to go on reading, and counts what was missed."""
        places, missed = read_ends(self._kafka, self._kafka.topic), 0
        for partition, (begin, end) in places.items():
            wanted = self._next.get(partition, self._position.offsets.get(partition, begin))
            if wanted > end:
                raise RecsysError(
                    f"{self._archive.path} has partition {partition} of {self._kafka.topic} up to offset {wanted}, "
                    f"where it ends at {end}: if the topic has been created anew, raise worker.epoch by one"
                )
            missed += max(0, begin - wanted)
            self._next[partition] = max(begin, wanted)
        if missed:
            log.error("records were gone from the topic before they were archived", extra={"missed": missed})
            self.counts += Counts(missed=missed)
            counts = self._position.counts + Counts(missed=missed)
            self._position = self._position.model_copy(update={"counts": counts, "offsets": dict(self._next)})
        return places

    def _assign(self, consumer: Consumer) -> None:
        consumer.assign([TopicPartition(self._kafka.topic, *place) for place in self._next.items()])

    def take(self, messages: list[Message]) -> None:
        """Gather records.

        Raises:
            UnavailableError: after an error among them the consumer would wait for ever; the records are gathered.
        """
        errors = []
        for message in messages:
            error, partition, offset = message.error(), message.partition(), message.offset()
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                assert partition is not None
                assert offset is not None
                self._next[partition] = offset + (error is None)
            else:
                errors.append(error)
        self._harvest.take([message for message in messages if message.error() is None])
        for error in errors:
            if error.code() in _FATAL:
                raise UnavailableError(f"{self._kafka.topic}: {error.str()}: start again to go on")
            log.warning("the broker: %s", error.str())

    def _reached(self, goal: dict[int, int] | None) -> bool:
        return goal is not None and all(self._next[partition] >= end for partition, end in goal.items())

    def _flush(self, consumer: Consumer) -> None:
        """Write what was gathered, and in the same step up to where the topic is kept."""
        gathered = self._harvest.counts
        if not gathered.records:
            return
        with self._archive.change(self._position) as change:
            days = self._harvest.write(change)
            update = {"offsets": dict(self._next), "counts": self._position.counts + gathered}
            change.position = change.position.model_copy(update=update)
        self._position = change.position
        self._harvest.clear()
        self.counts += gathered
        said = {"clicks": gathered.clicks, "dead_letters": gathered.dead_letters, "days": len(days)}
        log.info("written", extra=said | {"waiting": sum(self._waiting(consumer, each) for each in self._next)})

    def _look(self, consumer: Consumer) -> None:
        """From time to time, see whether the topic is still the same, has more partitions, and how far it goes."""
        if time.monotonic() - self._looked < WATCH_SECONDS:
            return
        try:
            identity = self._topic.ask_identity()
            found = consumer.list_topics(self._kafka.topic, timeout=REQUEST_SECONDS).topics[self._kafka.topic]
        except (UnavailableError, KafkaException):
            log.warning("the broker at %s does not answer", self._kafka.bootstrap_servers)
            if time.monotonic() - self._seen > self._settings.worker.retry_seconds:
                raise
        else:
            self._seen = time.monotonic()
            if identity and self._position.topic_id and identity != self._position.topic_id:
                raise UnavailableError(f"{self._kafka.topic} has been created anew: start again to read it")
            if len(found.partitions) > len(self._next):
                self._places()
                self._assign(consumer)
        self._looked = time.monotonic()

    def _waiting(self, consumer: Consumer, partition: int) -> int:
        """How many records of a partition are to be read, as far as the client has heard."""
        _, end = consumer.get_watermark_offsets(TopicPartition(self._kafka.topic, partition), cached=True)
        return max(0, int(end) - self._next[partition])
