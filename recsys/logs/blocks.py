"""A file of clicks as blocks of rows, whatever its format, and a block as events and what was refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import pyarrow as pa

from recsys.columns import Clock, EventColumns, decode_columns
from recsys.errors import InputError
from recsys.events import MAX_EVENT_BYTES
from recsys.logs import avro, delimited, jsonlines, parquet
from recsys.logs.dated import with_dates
from recsys.logs.parsed import Parsed
from recsys.logs.records import Oversized, Records, each_line, read_records
from recsys.logs.sources import Source


@dataclass(frozen=True)
class Block:
    """Part of a file, read but not parsed: that takes longer, and threads may do it side by side.

    Attributes:
        parse: gives :attr:`parsed`.
        records: the records that came from (text files).
        position: how far the file is read, in bytes.
        first_row: the number of rows before this block (Parquet and Avro).
    """

    parse: Callable[[], Parsed | Oversized]
    records: Records | None
    position: int
    first_row: int = 0

    @cached_property
    def parsed(self) -> Parsed | Oversized:
        """What could be parsed."""
        return self.parse()


@dataclass(frozen=True, order=True)
class Refused:
    """A record that gave no event: its line (or row) from 1, a stable word for counting, words for people, its text."""

    line: int
    reason: str
    detail: str
    text: bytes


def read_blocks(source: Source) -> Iterator[Block]:
    """The file, block by block.

    Raises:
        InputError: the file breaks off, is damaged or cannot be read.
    """
    try:
        yield from _table_blocks(source) if source.format in ("parquet", "avro") else _text_blocks(source)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{source.name}: is damaged, or cannot be read to its end: {error}") from None


def text_block(source: Source, records: Records, position: int) -> Block:
    """A block of records of a text file, which is read up to ``position``."""
    if source.format == "csv":
        parse = partial(delimited.parse, records, source.columns, source.header, source.delimiter)
    else:
        parse = partial(jsonlines.parse, records, source.columns, source.events)
    return Block(parse, records, position)


def decode_block(block: Block, clock: Clock) -> tuple[EventColumns | None, list[Refused]]:
    """The events of a block (``None`` if it cannot hold any), and what was refused, in the order of the file."""
    parsed, records = block.parsed, block.records
    if isinstance(parsed, Oversized):
        detail = f"has {parsed.size} bytes, at most {MAX_EVENT_BYTES} are allowed"
        return None, [Refused(parsed.line, "too_large", detail, parsed.head)]
    if "date" in parsed.columns:
        parsed = with_dates(parsed)
    if parsed.in_milliseconds:
        clock = replace(clock, unit="ms", pattern=None)
    events, rejections = decode_columns(parsed.columns, parsed.fields_of, clock, parsed.doubtful)
    if records is None:
        return events, [
            Refused(block.first_row + item.row + 1, item.error.code, str(item.error), _as_json(parsed, item.row))
            for item in rejections
        ]
    found = [(item.record, item.reason, item.detail) for item in parsed.bad]
    found += [(int(parsed.records[item.row]), item.error.code, str(item.error)) for item in rejections]
    return events, [
        Refused(int(records.lines[record]), reason, detail, records[record]) for record, reason, detail in sorted(found)
    ]


def _text_blocks(source: Source) -> Iterator[Block]:
    is_csv = source.format == "csv"
    join = delimited.joiner(len(source.header), source.delimiter) if is_csv else each_line
    header = is_csv and not source.headless
    with source.open() as file:
        for records in read_records(file.stream, join):
            if isinstance(records, Oversized):
                yield Block(partial(_as_it_is, records), None, file.position)
                continue
            rest = records.after(1) if header else records
            header = header and not len(records)
            if len(rest) == 0:
                continue
            yield text_block(source, rest, file.position)


def _table_blocks(source: Source) -> Iterator[Block]:
    rows = 0
    with source.open() as file:
        if source.format == "parquet":
            read = parquet.read(file.raw, source.columns)
        else:
            read = avro.read(source.name, file.raw, source.columns)
        for parsed, position in read:
            yield Block(partial(_as_it_is, parsed), None, position, rows)
            rows += len(parsed.records)


def _as_it_is(parsed: Parsed | Oversized) -> Parsed | Oversized:
    return parsed


def _as_json(parsed: Parsed, row: int) -> bytes:
    text = json.dumps(parsed.fields_of(row), default=str, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace")
