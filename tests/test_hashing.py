"""Hashes that name things on disk: they follow from the bytes alone and never change."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recsys.hashing import hash_texts, scramble


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), unique=True))
def test_texts_hash_by_their_bytes_alone(texts: list[str]) -> None:
    hashes = hash_texts(texts)
    assert len(set(hashes.tolist())) == len(texts)
    assert [hash_texts([text])[0] for text in texts] == hashes.tolist()


def test_a_slice_hashes_like_its_copy() -> None:
    texts = pa.array(["x", "a longer text", "é", "y"], pa.large_string())
    np.testing.assert_array_equal(hash_texts(texts.slice(1, 2)), hash_texts(["a longer text", "é"]))


def test_words_are_scrambled_as_splitmix64_does() -> None:
    """Its first three outputs from the seed 0, whose state grows by the golden ratio."""
    states = np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert scramble(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
