"""Events that could not be used, with the reason, as they go to the dead-letter topic."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import orjson

MAX_VALUE_BYTES = 512 * 1024  # a dead letter must itself fit into a message of the broker's usual megabyte


@dataclass(frozen=True, slots=True)
class Record:
    """One message of the click topic; ``timestamp`` is the broker's, in epoch milliseconds."""

    key: bytes | None
    value: bytes | None
    partition: int
    offset: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be used. ``reason`` is a short stable word, ``detail`` a sentence."""

    record: Record
    reason: str
    detail: str

    def encode(self, topic: str) -> bytes:
        """The letter as JSON: the reason, where the record stood in ``topic``, and its value.

        The value is given as text where it is UTF-8 and in base64 otherwise. A value beyond :data:`MAX_VALUE_BYTES` is
        cut, and ``truncated`` says so: the whole stands at the offset named.
        """
        record = self.record
        value = (record.value or b"")[:MAX_VALUE_BYTES]
        try:
            text, encoding = value.decode(), "utf-8"
        except UnicodeDecodeError:
            text, encoding = base64.b64encode(value).decode(), "base64"
        return orjson.dumps(
            {
                "reason": self.reason,
                "detail": self.detail,
                "topic": topic,
                "partition": record.partition,
                "offset": record.offset,
                "timestamp": record.timestamp,
                "encoding": encoding,
                "value": text,
                "truncated": len(record.value or b"") > MAX_VALUE_BYTES,
            }
        )
