"""Records of the click topic on their way to the shards of their users.

A record arrives as one line of JSON: an array where it is a click, an object (a dead letter) where it is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

import orjson
import pyarrow as pa

from recsys.errors import EventError
from recsys.events import ClickEvent, check_clock, decode, encode
from recsys.logs.letters import text_of
from recsys.pseudonyms import Pseudonyms

CLICKS = pa.schema(
    [
        ("time", pa.int64()),
        ("user", pa.large_string()),
        ("item", pa.large_string()),
        ("type", pa.large_string()),
        ("event_id", pa.large_string()),  # empty where a click carries none
        ("partition", pa.int32()),
        ("offset", pa.int64()),
    ]
)


class Record(NamedTuple):
    """One message of the click topic, and where it stands."""

    partition: int
    offset: int
    value: bytes


class Arrival(NamedTuple):
    """A record read: the shard it goes to, its line, and the click's time (epoch milliseconds; none of a letter)."""

    shard: int
    line: bytes
    time_ms: int | None


@dataclass(frozen=True)
class Intake:
    """How records are read: a user's clicks go to one of ``shards``, whatever else they hold.

    Clicks more than ``max_future_ms`` ahead of the clock are refused. With ``pseudonyms`` these stand for user ids (and
    event ids, which may name the user), and letters do not quote.
    """

    shards: int
    max_future_ms: int
    pseudonyms: Pseudonyms | None = None

    def read(self, record: Record, now_ms: int) -> Arrival:
        """Decode a record by the one decoder."""
        try:
            event = decode(record.value)
            check_clock(event, now_ms, self.max_future_ms)
        except EventError as error:
            quoted = (str(error), text_of(record.value)) if self.pseudonyms is None else ("", None)
            letter = letter_of(record.partition, record.offset, error.code, *quoted)
            return Arrival(record.partition % self.shards, orjson.dumps(letter), None)
        user, event_id = event.user_id, event.event_id or ""
        if self.pseudonyms is not None:
            user, event_id = self.pseudonyms.of(user), event_id and self.pseudonyms.of(event_id)
        click = (event.timestamp, user, event.item_id, event.event_type, event_id)
        line = orjson.dumps((*click, record.partition, record.offset))
        return Arrival(crc32(user.encode()) % self.shards, line, event.timestamp)


def late_letters(clicks: pa.Table) -> list[dict[str, Any]]:
    """A letter for each click that came too late; ``text`` has what a session would have held of it."""
    return [
        letter_of(
            click["partition"],
            click["offset"],
            "late",
            "came after its session was closed, or could have been",
            encode(
                ClickEvent(click["user"], click["item"], click["time"], click["type"], click["event_id"] or None)
            ).decode(),
        )
        for click in clicks.to_pylist()
    ]


def letter_of(partition: int, offset: int, reason: str, detail: str, text: str | None) -> dict[str, Any]:
    """A dead letter; ``reason`` is a short stable word, ``detail`` is for people, ``text`` the record's."""
    return {"partition": partition, "offset": offset, "reason": reason, "detail": detail, "text": text}


def sort(lines: Iterable[bytes]) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The clicks among the lines, as :data:`CLICKS`, and the letters."""
    values = [orjson.loads(line) for line in lines]
    clicks = [value for value in values if isinstance(value, list)]
    columns = zip(*clicks, strict=True) if clicks else ([] for _ in CLICKS)
    table = pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, CLICKS, strict=True)], schema=CLICKS
    )
    return table, [value for value in values if isinstance(value, dict)]
