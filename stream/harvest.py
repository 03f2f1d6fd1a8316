"""Records of the click topic on their way into the archive: read, and not yet in a file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from confluent_kafka import Message

from recsys.archive import SCHEMA, Change, Counts, write_clicks
from recsys.errors import EventError
from recsys.events import ClickEvent, as_json, decode
from recsys.pseudonyms import Pseudonyms
from stream.dead_letter import DeadLetter, Record

DAY_MS = 86_400_000


class Harvest:
    """Clicks in columns, and dead letters; ``size`` is the bytes of the records and of the letters.

    With ``pseudonyms``, of a click stays what a session is made of: context and unknown fields may name the user. Of a
    dead letter stay its place and the reason.
    """

    def __init__(self, topic: str, pseudonyms: Pseudonyms | None) -> None:
        self._topic, self._pseudonyms = topic, pseudonyms
        self.clear()

    def clear(self) -> None:
        """Forget what was gathered."""
        self._tables: list[pa.Table] = []
        self._letters: list[bytes] = []
        self._since: float | None = None
        self.size = 0

    @property
    def age(self) -> float:
        """For how many seconds the first record has waited."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def counts(self) -> Counts:
        """What was gathered."""
        clicks, letters = sum(map(len, self._tables)), len(self._letters)
        return Counts(records=clicks + letters, clicks=clicks, dead_letters=letters)

    def take(self, messages: Sequence[Message]) -> None:
        """Gather some records."""
        rows = []
        for message in messages:
            value = message.value() or b""
            self.size += len(value)
            try:
                rows.append((*self._fields(decode(value)), message.partition(), message.offset()))
            except EventError as error:
                self._letters.append(self._letter(message, error))
                self.size += len(self._letters[-1])
        if rows:
            columns = zip(*rows, strict=True)
            arrays = [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)]
            self._tables.append(pa.Table.from_arrays(arrays, schema=SCHEMA))
        if messages and self._since is None:
            self._since = time.monotonic()

    def write(self, change: Change) -> list[str]:
        """Write the files of a change, one a day; gives the days."""
        if self._letters:
            change.new_dead_letters().write_bytes(b"".join(self._letters))
        if not self._tables:
            return []
        clicks = pa.concat_tables(self._tables)
        days = clicks["timestamp"].to_numpy() // DAY_MS
        order = np.lexsort((clicks["offset"].to_numpy(), clicks["partition"].to_numpy(), days))
        clicks, days = clicks.take(pa.array(order)), days[order]
        found, starts = np.unique(days, return_index=True)
        names = found.astype("datetime64[D]").astype(str).tolist()
        for name, start, end in zip(names, starts, [*starts[1:], len(days)], strict=True):
            path = change.new_file(f"{name}/{change.name}.parquet")
            write_clicks(path, clicks.slice(start, end - start), change.position.key)
        return list(names)

    def _fields(self, event: ClickEvent) -> tuple[Any, ...]:
        """The click's values of :data:`SCHEMA`, but for where its record stands.

        Raises:
            EventError: what it says beside cannot be written.
        """
        core = (event.item_id, event.timestamp, event.event_type)
        if self._pseudonyms is not None:
            event_id = None if event.event_id is None else self._pseudonyms.of(event.event_id)
            return (self._pseudonyms.of(event.user_id), *core, event_id, None, None)
        context = None if event.context is None else as_json(event.context).decode()
        extra = as_json(event.extra).decode() if event.extra else None
        return (event.user_id, *core, event.event_id, context, extra)

    def _letter(self, message: Message, error: EventError) -> bytes:
        """A dead letter as the dead-letter topic has them, with the record's key, as a line."""
        partition, offset, key = message.partition(), message.offset(), message.key()
        assert partition is not None
        assert offset is not None
        if self._pseudonyms is not None:
            place = {"topic": self._topic, "partition": partition, "offset": offset}
            return orjson.dumps({"reason": error.code, **place}) + b"\n"
        record = Record(key, message.value(), partition, offset, message.timestamp()[1])
        letter = orjson.loads(DeadLetter(record, error.code, str(error)).encode(self._topic))
        return orjson.dumps({"key": None if key is None else key.decode(errors="replace"), **letter}) + b"\n"
