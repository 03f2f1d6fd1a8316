"""Letters put back into the click topic, each of them once.

For each reason a consumer group of its own, ``<group>.replayed.<reason>``, remembers how far the letters of that reason
have been replayed. A selection that begins later passes over the ones before it: they count as replayed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from recsys.errors import EventError, MissingInputError
from recsys.events import identifier
from recsys.reading import REQUEST_SECONDS, away, consumer_of, read, read_ends
from recsys.settings import KafkaSettings
from stream.letters import Letter, Letters, Selection
from stream.replay import connect, flush, produce

CHUNK = 500  # letters between two commits: killed in between, a replay sends at most so many a second time


@dataclass
class Plan:
    """What a replay will do: ``chosen`` letters by reason, and how many it passes over for good."""

    chosen: Counter[str] = field(default_factory=Counter)
    passed_over: int = 0
    already: int = 0


@dataclass(frozen=True)
class Replayed:
    """What a replay did. ``refused`` says of a letter (``partition:offset``) why it could not be sent whole."""

    replayed: dict[str, int]
    refused: dict[str, str]


class LetterReplay:
    """One replay of a selection; with ``again``, of letters that were replayed before too.

    Raises:
        UnavailableError: the broker does not answer.
    """

    def __init__(self, kafka: KafkaSettings, selection: Selection, *, again: bool = False) -> None:
        self._kafka, self._selection, self._again = kafka, selection, again
        self._letters = Letters(kafka)
        self._memories: dict[str, _Memory] = {}

    def plan(self) -> Plan:
        """Count what :meth:`run` would send."""
        plan, waiting = Plan(), Counter[tuple[str, int]]()
        for letter in self._letters:
            done = self._memory(letter.reason).holds(letter)
            stretch = (letter.reason, letter.place[0])
            if letter not in self._selection:
                waiting[stretch] += not done
            elif done and not self._again:
                plan.already += 1
            else:
                plan.chosen[letter.reason] += 1
                plan.passed_over += waiting.pop(stretch, 0)
        return plan

    def run(self) -> Replayed:
        """Send the letters, keyed by user id where their value has one, and by the record's key where not."""
        producer, failures = connect(self._kafka), list[KafkaError]()
        sent, refused = Counter[str](), dict[str, str]()
        chunk: list[Letter] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        def settle() -> None:
            flush(producer, failures, self._kafka)
            for letter in chunk:
                self._memory(letter.reason).keep(letter)
            for reason in {letter.reason for letter in chunk}:
                self._memory(reason).commit()
            chunk.clear()

        for letter in self._letters:
            if letter not in self._selection or (self._memory(letter.reason).holds(letter) and not self._again):
                continue
            try:
                value = self._whole(letter)
                produce(producer, self._kafka.topic, _user_id(value) or letter.key, value, delivered)
                sent[letter.reason] += 1
            except MissingInputError as error:
                refused[f"{letter.place[0]}:{letter.place[1]}"] = str(error)
            chunk.append(letter)
            if len(chunk) == CHUNK:
                settle()
        settle()
        return Replayed(dict(sent), refused)

    def close(self) -> None:
        """Disconnect."""
        for memory in self._memories.values():
            memory.close()

    def _memory(self, reason: str) -> _Memory:
        if reason not in self._memories:
            self._memories[reason] = _Memory(self._kafka, reason, sorted(self._letters.ends))
        return self._memories[reason]

    def _whole(self, letter: Letter) -> bytes:
        """The record's value; of a truncated letter, from the topic where the record stood.

        Raises:
            MissingInputError: it stands there no more.
        """
        if not letter.truncated:
            return letter.value
        partition, offset = letter.origin
        begin, end = read_ends(self._kafka, letter.topic).get(partition, (0, 0))
        if begin <= offset < end:
            for message in read(self._kafka, letter.topic, {partition: (offset, offset + 1)}):
                value = message.value() or b""
                if message.offset() == offset and value.startswith(letter.value):
                    return value
        raise MissingInputError(f"truncated, and the whole is not in {letter.topic} at {partition}:{offset} any more")


class _Memory:
    """Up to where the letters of one reason have been replayed, by partition of the dead-letter topic."""

    def __init__(self, kafka: KafkaSettings, reason: str, partitions: list[int]) -> None:
        self._kafka, self._topic = kafka, kafka.dead_letter_topic
        self._consumer: Consumer = consumer_of(kafka, f"{kafka.group}.replayed.{reason}")
        try:
            found = self._consumer.committed(
                [TopicPartition(self._topic, each) for each in partitions], REQUEST_SECONDS
            )
        except KafkaException as error:
            raise away(kafka, error) from None
        self._next = {place.partition: max(0, place.offset) for place in found}

    def holds(self, letter: Letter) -> bool:
        """Whether the letter has been replayed, or passed over."""
        return letter.place[1] < self._next.get(letter.place[0], 0)

    def keep(self, letter: Letter) -> None:
        """Take note of a letter that was sent."""
        partition, offset = letter.place
        self._next[partition] = max(self._next.get(partition, 0), offset + 1)

    def commit(self) -> None:
        """Make that last."""
        places = [TopicPartition(self._topic, partition, offset) for partition, offset in self._next.items() if offset]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            raise away(self._kafka, error) from None

    def close(self) -> None:
        self._consumer.close()


def _user_id(value: bytes) -> bytes | None:
    """The key that the record should have had."""
    try:
        return identifier("user_id", orjson.loads(value)["user_id"]).encode()
    except (ValueError, KeyError, TypeError, EventError):
        return None
