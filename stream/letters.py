"""The letters of the dead-letter topic, read from its beginning to where it ends now."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappush, heappushpop
from typing import Any

import orjson
from confluent_kafka import Message

from recsys.events import MAX_TIMESTAMP_MS, MIN_TIMESTAMP_MS
from recsys.reading import Place, read, read_ends
from recsys.settings import KafkaSettings


@dataclass(frozen=True)
class Letter:
    """One letter, as :class:`stream.dead_letter.DeadLetter` wrote it.

    ``place`` and ``time`` (epoch milliseconds) are its own; ``topic`` and ``origin`` those of the record that could not
    be used, with ``key`` and ``value``, of which only the beginning is here where the letter is ``truncated``.
    """

    place: Place
    time: int
    reason: str
    detail: str
    topic: str
    origin: Place
    key: bytes | None
    value: bytes
    truncated: bool

    @classmethod
    def of(cls, message: Message) -> Letter | None:
        """The letter in a message; None where it holds something else."""
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        try:
            fields: dict[str, Any] = orjson.loads(message.value() or b"")
            text: str = fields["value"]
            return cls(
                place=(partition, offset),
                time=message.timestamp()[1],
                reason=fields["reason"],
                detail=fields["detail"],
                topic=fields["topic"],
                origin=(fields["partition"], fields["offset"]),
                key=message.key(),
                value=base64.b64decode(text) if fields["encoding"] == "base64" else text.encode(),
                truncated=fields["truncated"],
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def as_dict(self) -> dict[str, Any]:
        """The letter for people and machines; a value that is no text is shown as far as it is."""
        return {
            "letter": f"{self.place[0]}:{self.place[1]}",
            "time": self.time,
            "reason": self.reason,
            "detail": self.detail,
            "topic": self.topic,
            "partition": self.origin[0],
            "offset": self.origin[1],
            "truncated": self.truncated,
            "value": self.value.decode(errors="replace"),
        }


@dataclass(frozen=True)
class Selection:
    """Which letters: of these reasons (none: all), of a stretch of time (epoch ms), in these offsets (none: all).

    ``offsets`` has for a partition the first offset and the last.
    """

    reasons: frozenset[str] = frozenset()
    since: int = MIN_TIMESTAMP_MS
    until: int = MAX_TIMESTAMP_MS
    offsets: tuple[tuple[int, int, int], ...] = ()

    def __contains__(self, letter: Letter) -> bool:
        partition, offset = letter.place
        return (
            (not self.reasons or letter.reason in self.reasons)
            and self.since <= letter.time < self.until
            and (
                not self.offsets or any(partition == each[0] and each[1] <= offset <= each[2] for each in self.offsets)
            )
        )


class Letters:
    """All letters that stood in the topic when this was made; each ``iter`` reads them anew, a partition in order.

    Raises:
        UnavailableError: the broker does not answer, or does not know the topic.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self.topic = kafka.dead_letter_topic
        self.ends = read_ends(kafka, self.topic)

    def __iter__(self) -> Iterator[Letter]:
        for message in read(self._kafka, self.topic, self.ends):
            letter = Letter.of(message)
            if letter is not None:
                yield letter

    def newest(self, selection: Selection, limit: int) -> list[Letter]:
        """The newest ``limit`` letters of a selection, newest first."""
        kept: list[tuple[int, Place, Letter]] = []
        for letter in self:
            if letter in selection:
                entry = (letter.time, letter.place, letter)
                (heappush if len(kept) < limit else heappushpop)(kept, entry)
        return [letter for _, _, letter in sorted(kept, key=lambda entry: entry[:2], reverse=True)]

    def counts(self, selection: Selection) -> Counter[str]:
        """How many letters a selection has of each reason."""
        return Counter(letter.reason for letter in self if letter in selection)
