"""CSV and its kin: quoted, compressed, damaged.

Records that can be read in one way only go to Arrow's reader together. All others (quotes that stand elsewhere than
around a field, carriage returns inside) are read one by one by the standard library, so what becomes of a line depends
on no other line, and a bad one costs itself and nothing else.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from recsys.errors import InputError
from recsys.events import MAX_EVENT_BYTES
from recsys.logs.parsed import Bad, Parsed, fields_from
from recsys.logs.records import Joiner, Records, each_line

_QUOTE = 0x22
_RETURN = 0x0D
_DELIMITERS = ",\t;|"


def header_of(name: str, head: bytes, header: tuple[str, ...] = (), delimiter: str = "") -> tuple[tuple[str, ...], str]:
    """The column names and the delimiter, from the first bytes of a file where they are not given.

    Raises:
        InputError: the first line is no header.
    """
    line = head.lstrip(b"\r\n").split(b"\n", 1)[0].rstrip(b"\r")
    text = line.decode(errors="replace")
    if "\0" in text or "\ufffd" in text:
        raise InputError(
            f"{name}: is binary, or text that is not UTF-8: CSV, JSON lines, Parquet or Avro is needed (see iconv)"
        )
    delimiter = delimiter or max(_DELIMITERS, key=text.count)
    if header:
        return header, delimiter
    try:
        names = tuple(name.strip() for name in next(csv.reader([text], delimiter=delimiter, strict=True)))
    except csv.Error as error:
        raise InputError(f"{name}: line 1: not a CSV header: {error}") from None
    if len(set(names)) != len(names):
        raise InputError(f"{name}: line 1: the header names a column twice: {', '.join(names)}")
    return names, delimiter


def joiner(width: int, delimiter: str) -> Joiner:
    """Joins the lines of quoted fields that hold newlines into records of ``width`` fields."""
    return partial(_join_quoted, width=width, delimiter=delimiter)


def parse(records: Records, columns: Mapping[str, str], header: Sequence[str], delimiter: str) -> Parsed:
    """The event columns of a block of CSV records, all as text."""
    positions = {field: header.index(column) for field, column in columns.items()}
    bad = [*_too_large(records), *_not_utf8(records)]
    certain = np.ones(len(records), np.bool_)
    certain[[item.record for item in bad]] = False
    odd = (_odd_quotes(records, delimiter) | _inner_returns(records)) & certain
    certain &= ~odd
    rows, tables = np.flatnonzero(certain), []
    if table := _read_block(records, rows, positions, len(header), delimiter):
        columns_read, wrong_width = table
        bad += [
            Bad(int(rows[i]), "wrong_fields", f"has {n} fields, the header has {len(header)}") for i, n in wrong_width
        ]
        rows = np.delete(rows, [i for i, _ in wrong_width])
        tables.append(columns_read)
        odd_rows = np.flatnonzero(odd)
    else:
        odd_rows, rows = np.flatnonzero(odd | certain), rows[:0]
    if len(odd_rows):
        columns_read, good, refused = _read_singly(records, odd_rows, positions, len(header), delimiter)
        bad += refused
        rows = np.concatenate((rows, good))
        tables.append(columns_read)
    arrays = {field: pa.concat_arrays([part[field] for part in tables]) for field in positions}
    return Parsed(arrays, rows, fields_from(arrays), bad)


def _read_block(
    records: Records, rows: NDArray[np.int64], positions: Mapping[str, int], width: int, delimiter: str
) -> tuple[dict[str, pa.Array], list[tuple[int, int]]] | None:
    """Columns of the rows and (row, fields) of those with another width; ``None`` where Arrow sees other rows."""
    whole = len(rows) == len(records)
    data = records.data if whole else b"\n".join([records[row] for row in rows.tolist()])
    if not len(rows):
        return {field: pa.array([], pa.large_string()) for field in positions}, []
    wrong_width: list[tuple[int, int]] = []

    def skip(row: pa_csv.InvalidRow) -> str:
        wrong_width.append((row.number - 1, row.actual_columns))
        return "skip"

    names = [str(column) for column in range(width)]
    wanted = sorted({names[position] for position in positions.values()})
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            pa_csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
            pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
            pa_csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(wanted, pa.large_string()),
                check_utf8=False,  # checked before
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows + len(wrong_width) != len(rows):
        return None
    return {field: table[names[position]].combine_chunks() for field, position in positions.items()}, wrong_width


def _read_singly(
    records: Records, rows: NDArray[np.int64], positions: Mapping[str, int], width: int, delimiter: str
) -> tuple[dict[str, pa.Array], NDArray[np.int64], list[Bad]]:
    good, bad = [], []
    values: dict[str, list[str]] = {field: [] for field in positions}
    for row in rows.tolist():
        fields = _fields(records[row].decode(), delimiter)
        if fields is None:
            bad.append(
                Bad(row, "bad_quotes", "a quoted field does not close or goes on, or a line breaks outside quotes")
            )
        elif len(fields) != width:
            bad.append(Bad(row, "wrong_fields", f"has {len(fields)} fields, the header has {width}"))
        else:
            good.append(row)
            for field, position in positions.items():
                values[field].append(fields[position])
    arrays = {field: pa.array(texts, pa.large_string()) for field, texts in values.items()}
    return arrays, np.array(good, np.int64), bad


def _fields(text: str, delimiter: str) -> list[str] | None:
    """The fields of one record; ``None`` when it is no record."""
    try:
        parsed = list(csv.reader([text.rstrip("\r")], delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return parsed[0] if len(parsed) == 1 else None


def _too_large(records: Records) -> list[Bad]:
    sizes = records.ends - records.starts
    return [
        Bad(record, "too_large", f"has {sizes[record]} bytes, at most {MAX_EVENT_BYTES} are allowed")
        for record in np.flatnonzero(sizes > MAX_EVENT_BYTES).tolist()
    ]


def _not_utf8(records: Records) -> list[Bad]:
    if records.data.isascii():
        return []
    bad, start = [], 0
    view = memoryview(records.data)
    while True:
        try:
            str(view[start:], "utf-8")
        except UnicodeDecodeError as error:
            record = int(np.searchsorted(records.starts, start + error.start, side="right")) - 1
            if records.ends[record] - records.starts[record] <= MAX_EVENT_BYTES:
                place = start + error.start - int(records.starts[record]) + 1
                bad.append(Bad(record, "not_utf8", f"byte {place} is not UTF-8: {error.reason}"))
            start = int(records.ends[record]) + 1
        else:
            return bad


def _odd_quotes(records: Records, delimiter: str) -> NDArray[np.bool_]:
    """Where quotes are not just those around whole fields and doubled ones between them.

    In a record that is well formed the first quote opens a field, the second closes it or is the first of a doubled
    one, and so on by turns.
    """
    data = np.frombuffer(records.data, np.uint8)
    quotes = np.flatnonzero(data == _QUOTE)
    if not len(quotes):
        return np.zeros(len(records), np.bool_)
    owners = np.searchsorted(records.starts, quotes, side="right") - 1
    counts = np.bincount(owners, minlength=len(records))
    starts, ends = records.starts[owners], _text_ends(records)[owners]
    before, after = data[np.maximum(quotes - 1, 0)], data[np.minimum(quotes + 1, len(data) - 1)]
    turn = np.arange(len(quotes)) - (np.cumsum(counts) - counts)[owners]
    opens = (quotes == starts) | (before == ord(delimiter)) | ((before == _QUOTE) & (turn > 0))
    closes = (quotes + 1 == ends) | (after == ord(delimiter)) | (after == _QUOTE)
    odd: NDArray[np.bool_] = counts % 2 == 1
    odd[owners[~np.where(turn % 2 == 0, opens, closes)]] = True
    return odd


def _inner_returns(records: Records) -> NDArray[np.bool_]:
    """Where a carriage return stands before the end of a record."""
    returns = np.flatnonzero(np.frombuffer(records.data, np.uint8) == _RETURN)
    inner = np.zeros(len(records), np.bool_)
    if not len(returns):
        return inner
    owners = np.searchsorted(records.starts, returns, side="right") - 1
    inner[owners[returns < _text_ends(records)[owners]]] = True
    return inner


def _text_ends(records: Records) -> NDArray[np.int64]:
    """Where each record ends without the carriage return of its line end."""
    last = np.frombuffer(records.data, np.uint8)[np.maximum(records.ends - 1, records.starts)]
    ends: NDArray[np.int64] = records.ends - (last == _RETURN)
    return ends


def _join_quoted(
    data: bytes,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    final: bool,
    *,
    width: int,
    delimiter: str,
) -> tuple[NDArray[np.int64], int]:
    """A line with an odd quote opens a record if a later one closes it within the largest event and all fields fit."""
    quotes = np.flatnonzero(np.frombuffer(data, np.uint8) == _QUOTE)
    if not len(quotes):
        return each_line(data, starts, ends, final)
    owners = np.searchsorted(ends, quotes)
    odd = np.flatnonzero(np.bincount(owners, minlength=len(ends))[: len(ends)] % 2).tolist()
    begins = np.ones(len(ends), np.bool_)
    complete, i = len(ends), 0
    while i < len(odd):
        opening = odd[i]
        closing = odd[i + 1] if i + 1 < len(odd) else None
        end = ends[closing] if closing is not None else len(data)
        i += 1
        if end - starts[opening] > MAX_EVENT_BYTES:
            continue
        if closing is None:
            if not final:
                complete = opening
            continue
        fields = _fields(data[starts[opening] : end].decode(errors="replace"), delimiter)
        if fields is not None and len(fields) == width:
            begins[opening + 1 : closing + 1] = False
            i += 1
    first, _ = each_line(data, starts, ends, final)
    return first[begins & (first < complete)], complete
