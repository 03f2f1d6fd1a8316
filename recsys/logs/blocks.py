"""A file of clicks as blocks of rows, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recsys.logs import delimited, jsonlines, parquet
from recsys.logs.parsed import Parsed
from recsys.logs.records import Oversized, Records, each_line, read_records
from recsys.logs.sources import Source


@dataclass(frozen=True)
class Block:
    """Part of a file: what could be parsed, the records it came from (text files), and how far the file is read."""

    parsed: Parsed | Oversized
    records: Records | None
    position: int


def read_blocks(source: Source) -> Iterator[Block]:
    """The file, block by block.

    Raises:
        OSError, pa.ArrowException: the file breaks off or is damaged.
    """
    if source.format == "parquet":
        for parsed in parquet.read(source.name, source.columns):
            yield Block(parsed, None, 0)
        return
    is_csv = source.format == "csv"
    join = delimited.joiner(len(source.header), source.delimiter) if is_csv else each_line
    header = is_csv
    with source.open() as file:
        for records in read_records(file.stream, join):
            if isinstance(records, Oversized):
                yield Block(records, None, file.position)
                continue
            rest = records.after(1) if header else records
            header = header and not len(records)
            if len(rest) == 0:
                continue
            if is_csv:
                parsed = delimited.parse(rest, source.columns, source.header, source.delimiter)
            else:
                parsed = jsonlines.parse(rest, source.columns)
            yield Block(parsed, rest, file.position)
