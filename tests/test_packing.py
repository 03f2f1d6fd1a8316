"""Numbers in few bytes: whole ones come back as they were, fractions as near as their kind says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys.packing import Numbers, Reader, array, column, digest, number, signed, unsigned

HIDDEN = hnp.arrays(np.float32, st.integers(0, 9), elements=st.floats(-1, 1, width=32))


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=9), st.integers(0, (1 << 64) - 1))
def test_whole_numbers_come_back(values: list[int], last: int) -> None:
    reader = Reader(b"".join(map(number, values)) + column(values) + digest(last) + b"rest")
    assert reader.numbers(len(values)) == values
    assert reader.column(len(values)) == values
    assert (reader.digest(), reader.rest()) == (last, b"rest")


@given(hnp.arrays(np.int32, st.integers(0, 300), elements=st.sampled_from([0, 1, 255, 256, 70_000, (1 << 31) - 1])))
def test_an_array_is_written_as_a_column_is(values: np.ndarray) -> None:
    packed = array(values)
    assert packed == column(values.tolist())
    read = Reader(packed + b"rest").array(len(values))
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, values)


def test_an_array_that_is_cut_or_too_wide_is_refused() -> None:
    for packed in (array(np.array([1, 2, 3], np.int32))[:-1], column([1 << 40, 1, 2])):
        with pytest.raises(ValueError, match=r"cut off|5 bytes|6 bytes"):
            Reader(packed).array(3)


@given(st.integers(-(1 << 62), 1 << 62))
def test_numbers_of_either_sign_come_back(value: int) -> None:
    assert signed(value) >= 0
    assert unsigned(signed(value)) == value


@pytest.mark.parametrize(
    ("packed", "size"),
    [
        (number(0), 1),
        (number(127), 1),
        (number(128), 2),
        (column([0] * 9), 1),
        (column([1, 255]), 3),
        (column([256]), 3),
    ],
)
def test_small_numbers_take_few_bytes(packed: bytes, size: int) -> None:
    assert len(packed) == size


@given(HIDDEN, st.sampled_from(Numbers))
def test_what_is_read_is_what_was_rounded(values: np.ndarray, numbers: Numbers) -> None:
    packed = numbers.pack(values)
    assert len(packed) == numbers.size(len(values))
    rounded = numbers.rounded(values)
    np.testing.assert_array_equal(numbers.unpack(packed, len(values)), rounded)
    np.testing.assert_array_equal(numbers.rounded(rounded), rounded)
    worst = {Numbers.FLOAT32: 0, Numbers.FLOAT16: 2**-12, Numbers.INT12: 0.5 / 2047 + 1e-7}[numbers]
    assert np.abs(rounded - values).max(initial=0) <= worst


def test_every_step_of_twelve_bits_comes_back() -> None:
    steps = (np.arange(-2047, 2048) / 2047).astype(np.float32)
    np.testing.assert_array_equal(Numbers.INT12.unpack(Numbers.INT12.pack(steps), len(steps)), steps)
