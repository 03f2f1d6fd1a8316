"""How values look in the store: bytes that say themselves how they are to be read.

A value begins with a byte for its form, so values of either form stand side by side and a reader needs no settings.
Whole numbers take as few bytes as they need: :func:`number` one after the other, seven bits a byte, and
:func:`column` or :func:`array` many at once, as wide as the greatest of them. All are exact. Fractions are as exact as
:class:`Numbers` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

MOST = 1 << 16  # values of a column that a reader believes in

_INT32 = np.dtype("<i4")
_LEVELS = np.float32(2047)  # int12: steps between 0 and 1


class Numbers(StrEnum):
    """In what numbers a hidden state is stored.

    ``float32`` is exact. A GRU's states lie between -1 and 1, where ``float16`` (two bytes a number) is off by 2^-12 at
    most, and near 0 by much less. ``int12`` has equal steps of 1/2047 (three bytes for two numbers), so it is off by
    half of that, about 2^-12, anywhere.
    """

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT12 = "int12"

    def rounded(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The values ``[...]`` as they are read again."""
        if self is Numbers.INT12:
            return _steps(values).astype(np.float32) / _LEVELS
        return values.astype(np.float16).astype(np.float32) if self is Numbers.FLOAT16 else values

    def size(self, count: int) -> int:
        """Bytes that ``count`` numbers take."""
        return {Numbers.FLOAT32: 4 * count, Numbers.FLOAT16: 2 * count, Numbers.INT12: (count + 1) // 2 * 3}[self]

    def pack(self, values: NDArray[np.float32]) -> bytes:
        """The values ``[count]`` as bytes."""
        if self is not Numbers.INT12:
            return values.astype("<f4" if self is Numbers.FLOAT32 else "<f2").tobytes()
        pairs = np.zeros((len(values) + 1) // 2 * 2, "<u4")
        pairs[: len(values)] = _steps(values) & 0xFFF
        joined = pairs[::2] | pairs[1::2] << 12
        three: bytes = joined.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        return three

    def unpack(self, data: bytes, count: int) -> NDArray[np.float32]:
        """Read the ``count`` numbers that :meth:`pack` wrote."""
        if self is not Numbers.INT12:
            return np.frombuffer(data, "<f4" if self is Numbers.FLOAT32 else "<f2", count).astype(np.float32)
        joined = np.zeros((len(data) // 3, 4), np.uint8)
        joined[:, :3] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        whole = joined.view("<u4")
        steps = np.concatenate([whole & 0xFFF, whole >> 12], axis=1).ravel()[:count].astype(np.int32)
        return ((steps ^ 0x800) - 0x800).astype(np.float32) / _LEVELS


# The byte that says so in a value.
FORMS = {Numbers.FLOAT32: 0xA0, Numbers.FLOAT16: 0xA1, Numbers.INT12: 0xA2}
_NUMBERS = {form: numbers for numbers, form in FORMS.items()}
_BYTES = [bytes((value,)) for value in range(0x80)]


def _steps(values: NDArray[np.float32]) -> NDArray[np.int32]:
    steps: NDArray[np.int32] = np.rint(np.clip(values, -1, 1) * _LEVELS).astype(np.int32)
    return steps


def number(value: int) -> bytes:
    """A number from 0 up."""
    if 0 <= value < 0x80:
        return _BYTES[value]
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def signed(value: int) -> int:
    """A number of either sign as one from 0 up, small where it is small."""
    return 2 * value if value >= 0 else -2 * value - 1


def unsigned(value: int) -> int:
    """What :func:`signed` was given."""
    return value // 2 if value % 2 == 0 else -(value + 1) // 2


def digest(value: int) -> bytes:
    """A model's digest."""
    return value.to_bytes(8, "little")


def column(values: Sequence[int]) -> bytes:
    """Numbers from 0 up: their width in bytes (one byte; 0 where all are 0), then each."""
    highest = max(values, default=0)
    if highest == 0:
        return b"\0"
    if highest < 0x100:
        return b"\1" + bytes(values)
    width = (highest.bit_length() + 7) // 8
    return bytes((width,)) + b"".join([value.to_bytes(width, "little") for value in values])


def array(values: NDArray[np.int32]) -> bytes:
    """What :func:`column` gives of the same numbers; sooner where they are many."""
    width = (int(values.max()).bit_length() + 7) // 8 if len(values) else 0
    four = values.astype(_INT32, copy=False).view(np.uint8).reshape(-1, 4)
    return bytes((width,)) + four[:, :width].tobytes()


class Reader:
    """Reads a value from its beginning to its end. Raises ``ValueError`` where the bytes do not suffice."""

    def __init__(self, data: bytes) -> None:
        self._data, self._offset = data, 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        self._offset += size
        if self._offset > len(self._data):
            raise ValueError("cut off")
        return self._data[self._offset - size : self._offset]

    def byte(self) -> int:
        """The next byte."""
        if self._offset >= len(self._data):
            raise ValueError("cut off")
        self._offset += 1
        return self._data[self._offset - 1]

    def numbers(self, count: int) -> list[int]:
        """What :func:`number` wrote, so many times."""
        data, offset, found = self._data, self._offset, []
        try:
            for _ in range(count):
                value, shift = data[offset], 7
                offset += 1
                while value >> shift:  # the byte before says that another follows
                    value += data[offset] - 1 << shift
                    offset += 1
                    shift += 7
                found.append(value)
        except IndexError:
            raise ValueError("cut off") from None
        self._offset = offset
        return found

    def form(self) -> Numbers:
        """The numbers for which the next byte stands."""
        if (form := self.byte()) not in _NUMBERS:
            raise ValueError(f"no form {form:#x}")
        return _NUMBERS[form]

    def digest(self) -> int:
        """What :func:`digest` wrote."""
        return int.from_bytes(self.take(8), "little")

    def column(self, count: int) -> list[int]:
        """What :func:`column` wrote of ``count`` numbers."""
        if count > MOST:
            raise ValueError(f"{count} values")
        width = self.byte()
        if width == 0:
            return [0] * count
        part = self.take(width * count)
        if width == 1:
            return list(part)
        return [int.from_bytes(part[start : start + width], "little") for start in range(0, len(part), width)]

    def array(self, count: int) -> NDArray[np.int32]:
        """What :func:`array` wrote of ``count`` numbers, or :func:`column` of numbers below 2**31."""
        if count > MOST:
            raise ValueError(f"{count} values")
        width = self.byte()
        if width > 4:
            raise ValueError(f"numbers of {width} bytes")
        four = np.zeros((count, 4), np.uint8)
        four[:, :width] = np.frombuffer(self.take(width * count), np.uint8).reshape(count, width)
        return four.view(_INT32).reshape(count)

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self._data[self._offset :]
