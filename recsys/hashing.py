"""Columns of texts byte by byte: 64-bit hashes that are the same on every machine, and marked bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def hash_texts(texts: Sequence[str] | pa.Array) -> NDArray[np.uint64]:
    """A 64-bit hash of each text's UTF-8 bytes: uint64 ``[len(texts)]``."""
    array = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
    offsets, data = buffers(array.cast(pa.large_string()))
    padded = np.concatenate((data, np.zeros(8, np.uint8)))
    # Every byte position as the little-endian word that begins there.
    words = np.ndarray(len(padded) - 7, "<u8", padded, strides=(1,))
    lengths = np.diff(offsets)
    state = scramble(lengths.astype(np.uint64))
    for done in range(0, int(lengths.max(initial=0)), 8):
        active = np.flatnonzero(lengths > done)
        shift = (8 * np.maximum(8 - (lengths[active] - done), 0)).astype(np.uint64)
        state[active] = scramble(state[active] ^ (words[offsets[active] + done] << shift))
    return state


def scramble(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit words in which each bit of input moves each bit of output (the finaliser of SplitMix64)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def buffers(texts: pa.LargeStringArray) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The texts' bytes end to end, and where each begins and the last ends."""
    if len(texts) == 0:
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    _, offset_buffer, data_buffer = texts.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)[offsets[0] : offsets[-1]]
    return offsets - offsets[0], data


def rows_with(
    texts: pa.LargeStringArray, marked: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """Where a text holds a byte that is ``marked``."""
    offsets, data = buffers(texts)
    found = np.zeros(len(texts), np.bool_)
    places = np.flatnonzero(marked(data))
    if len(places):
        found[np.searchsorted(offsets, places, side="right") - 1] = True
    return found
