"""What travels between workers is a bounded part of the items, and adds up to all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines import numbers
from pipelines.counts import RANGE, add_counts, counts_of
from pipelines.places import Local
from pipelines.threads import in_threads

IDS = 100_000
BUCKETS = 64


def offers_of(shard: str, ids: list[str], counts: list[int]) -> list[numbers.Offer]:
    texts = pa.array(ids, pa.large_string())
    order, sizes = numbers.by_bucket(texts, BUCKETS)
    return list(numbers.offer(shard, texts.take(pa.array(order)), np.array(counts)[order], sizes))


def test_an_element_holds_a_small_share_of_the_ids_of_a_shard() -> None:
    offers = offers_of("00000", [f"item-{number:08}" for number in range(IDS)], [1] * IDS)
    assert len(offers) == BUCKETS
    even = sum(len(data) for _, (_, data) in offers) / BUCKETS
    assert max(len(data) for _, (_, data) in offers) < 1.2 * even


def test_an_item_has_one_number_in_all_shards(tmp_path: Path) -> None:
    shards = {"00000": ["b", "ä", "item 10", "z"], "00001": ["z", "item 9"], "00002": ["ä", "item 10", "b", "a"]}
    offers = [offer for name, ids in shards.items() for offer in offers_of(name, ids, list(range(1, len(ids) + 1)))]
    work = Local(tmp_path)
    codes_by_shard: dict[str, list[tuple[int, bytes]]] = {}
    for bucket in {bucket for bucket, _ in offers}:
        parts = [part for place, part in reversed(offers) if place == bucket]
        for name, part in numbers.number((bucket, parts), work, BUCKETS):
            codes_by_shard.setdefault(name, []).insert(0, part)
    for found_codes in codes_by_shard.items():
        numbers.keep_codes(found_codes, work)
    found: dict[str, set[int]] = {}
    for name, ids in shards.items():
        texts = pa.array(ids, pa.large_string())
        offered = texts.take(pa.array(numbers.by_bucket(texts, BUCKETS)[0])).to_pylist()
        for item, code in zip(offered, numbers.codes_of(work, name).tolist(), strict=True):
            found.setdefault(item, set()).add(code)
    assert all(len(codes) == 1 for codes in found.values())
    code = {item: next(iter(codes)) for item, codes in found.items()}
    assert len(set(code.values())) == len(code) == 6
    totals = numbers.total_counts(work, BUCKETS)
    assert {item: totals[place] for item, place in code.items()} == {
        "b": 4, "ä": 3, "item 10": 5, "z": 5, "item 9": 2, "a": 4
    }  # fmt: skip
    assert totals.sum() == 23
    ids, codes = numbers.ids_of(work, totals > 2, BUCKETS)
    assert ids.to_pylist() == ["a", "b", "item 10", "z", "ä"]
    assert codes.tolist() == [code[item] for item in ids.to_pylist()]


def test_counts_travel_by_ranges_and_only_where_there_are_any() -> None:
    items = 10_000_000
    codes = np.arange(items, dtype=np.int32)[::-1]
    counts = (codes % 7 == 0).astype(np.int64) * codes
    elements = list(counts_of("support", codes, counts))
    assert max(len(data) for _, data in elements) <= 16 * (RANGE // 7 + 1)
    total = np.zeros(items + RANGE, np.int64)
    for (name, number), data in elements:
        assert name == "support"
        total[number * RANGE : (number + 1) * RANGE] += add_counts([data, data])
    assert (total[:items] == 2 * counts[::-1]).all()


def test_threads_give_results_in_order_and_all_before_an_error() -> None:
    taken, results = [], []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number
        raise ValueError("the end")

    def collect() -> None:
        for result in in_threads(lambda number: number * 2, items(), threads=3):
            results.append(result)
            assert len(taken) - len(results) <= 3

    with pytest.raises(ValueError, match="the end"):
        collect()
    assert results == list(range(0, 40, 2))


def test_threads_end_when_nobody_wants_more() -> None:
    """As where the disk is full onto which results go."""
    results = in_threads(str, range(20), threads=3)
    assert next(results) == "0"
    results.close()
    assert list(results) == []
