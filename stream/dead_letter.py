"""Events that could not be used, with the reason, as they go to the dead-letter topic."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import orjson

# A letter must itself fit into a message of the broker's usual megabyte, whatever is in it.
MAX_VALUE_BYTES = 512 * 1024
MAX_TEXT_BYTES = 700 * 1024  # JSON writes some characters as six
MAX_KEY_BYTES = 1024
MAX_DETAIL_CHARACTERS = 1000


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

    @property
    def key(self) -> bytes | None:
        """The record's key; none where it is too long to be one."""
        key = self.record.key
        return key if key is None or len(key) <= MAX_KEY_BYTES else None

    def encode(self, topic: str) -> bytes:
        """The letter as JSON: the reason, where the record stood in ``topic``, and its value.

        The value is text where it is UTF-8, and base64 where it is not or where JSON would blow it up. A value beyond
        :data:`MAX_VALUE_BYTES` is cut, and ``truncated`` says so: the whole stands at the offset named.
        """
        record = self.record
        return orjson.dumps(
            {
                "reason": self.reason,
                "detail": self.detail[:MAX_DETAIL_CHARACTERS],
                "topic": topic,
                "partition": record.partition,
                "offset": record.offset,
                "timestamp": record.timestamp,
                **_value(record.value or b""),
            }
        )


def _value(value: bytes) -> dict[str, Any]:
    kept = value[:MAX_VALUE_BYTES]
    truncated = len(kept) < len(value)
    try:
        text = kept.decode()
        if len(orjson.dumps(text)) <= MAX_TEXT_BYTES:
            return {"encoding": "utf-8", "value": text, "truncated": truncated}
    except UnicodeDecodeError:
        pass
    return {"encoding": "base64", "value": base64.b64encode(kept).decode(), "truncated": truncated}
