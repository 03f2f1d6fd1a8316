"""How logs tell time: epoch seconds, milliseconds or microseconds, RFC 3339, or any form of ``strptime``.

Whole columns are read where a value is certainly right, and value by value where it is not; both give the same.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.errors import EventError
from recsys.events import INTEGER
from recsys.hashing import buffers, rows_with

TimeUnit = Literal["s", "ms", "us"]

_SAFE_DIGITS = 15  # that many digits fit int64 in any unit
_FRACTION = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_PLAIN_PATTERN = re.compile(r"([^%]|%[YmdHMS])+")


def plain_times(column: pa.Array, unit: TimeUnit, pattern: str | None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The column in epoch milliseconds, and where a value is certainly right (elsewhere the time means nothing)."""
    texts = None
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts = column.cast(pa.large_string()).fill_null("")
        if pattern is not None:
            return _plain_pattern(texts, pattern)
        lengths = np.diff(buffers(texts)[0])
        right = (lengths > 0) & (lengths <= _SAFE_DIGITS) & ~rows_with(texts, _is_no_digit)
        values = pc.if_else(pa.array(right), texts, "0").cast(pa.int64()) if not right.all() else texts.cast(pa.int64())
    elif pa.types.is_integer(column.type) and pattern is None:
        right = column.is_valid().to_numpy(zero_copy_only=False) & pc.less(
            column.fill_null(0), 10**_SAFE_DIGITS
        ).to_numpy(zero_copy_only=False)
        values = pc.if_else(pa.array(right), column, 0).cast(pa.int64())
    else:
        return np.zeros(len(column), np.int64), np.zeros(len(column), np.bool_)
    times = values.to_numpy(zero_copy_only=False)
    right &= times >= 0
    times = times * 1000 if unit == "s" else times // 1000 if unit == "us" else times
    if texts is not None and not right.all():
        dates, dated = _plain_dates(texts)
        times, right = np.where(dated, dates, times), right | dated
    return times, right


def in_milliseconds(value: Any, unit: TimeUnit, pattern: str | None) -> Any:
    """A number or its digits, scaled to milliseconds, or a text by the pattern; anything else is left to the decoder.

    Raises:
        EventError: the value is not of the pattern's form.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
        return value
    if pattern is not None:
        return _by_pattern(str(value), pattern)
    if unit == "ms":
        return value
    text = value.strip() if isinstance(value, str) else repr(value)
    if INTEGER.fullmatch(text) or isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value) * 1000 if unit == "s" else int(value) // 1000
    return math.floor(Decimal(text) * 1000) if unit == "s" and _FRACTION.fullmatch(text) else value


def _by_pattern(text: str, pattern: str) -> int:
    try:
        moment = datetime.strptime(text, pattern)
    except ValueError:
        raise EventError("timestamp", "format", f"is no time of the form {pattern}: {text[:40]!r}") from None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND


def _plain_pattern(texts: pa.LargeStringArray, pattern: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Epoch milliseconds of texts of the pattern; certainly right is what the pattern writes just as it was read."""
    if not _PLAIN_PATTERN.fullmatch(pattern):
        return np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    moments = pc.strptime(texts, format=pattern, unit="s", error_is_null=True)
    written = pc.strftime(moments, format=pattern).cast(pa.large_string())
    right = pc.equal(written, texts).fill_null(False).to_numpy(zero_copy_only=False)
    seconds = moments.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return seconds * 1000, right & (seconds >= 0)


def _plain_dates(texts: pa.LargeStringArray) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Epoch milliseconds of texts like ``2014-04-07T10:51:09Z`` or ``2014-04-07 10:51:09.277Z``, and which are such."""
    offsets, data = buffers(texts)
    lengths = np.diff(offsets)
    times, right = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    for layout in ("dddd-dd-ddTdd:dd:ddZ", "dddd-dd-ddTdd:dd:dd.dddZ"):
        rows = np.flatnonzero(lengths == len(layout))
        symbols = np.stack([data[offsets[rows] + place] for place in range(len(layout))])  # [places, rows]
        fits = np.ones(len(rows), np.bool_)
        for symbol, place in zip(symbols, layout, strict=True):
            fits &= symbol - 0x30 < 10 if place == "d" else (symbol == ord(place)) | (place == "T") & (symbol == 0x20)
        rows, digits = rows[fits], (symbols if fits.all() else symbols[:, fits]) - 0x30

        def number(first: int, last: int, digits: NDArray[np.uint8] = digits) -> NDArray[np.int64]:
            values = np.zeros(digits.shape[1], np.int64)
            for place in range(first, last):
                values = values * 10 + digits[place]
            return values

        year, month, day = number(0, 4), number(5, 7), number(8, 10)
        hour, minute, second = number(11, 13), number(14, 16), number(17, 19)
        months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
        begin, end = (part.astype("datetime64[D]").astype(np.int64) for part in (months, months + 1))
        millis = number(20, 23) if len(layout) == 24 else 0
        times[rows] = ((((begin + day - 1) * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis
        exists = (year >= 1970) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= end - begin)
        right[rows] = exists & (hour < 24) & (minute < 60) & (second < 60)
    return times, right


def _is_no_digit(data: NDArray[np.uint8]) -> NDArray[np.bool_]:
    other: NDArray[np.bool_] = data - np.uint8(0x30) > 9
    return other
