"""Numbers for items that hold across shards.

Ids are spread over buckets by their hash, and each bucket numbers its own: the item at place ``p`` of bucket ``b`` has
the code ``p * buckets + b``. So nobody needs to hold all ids, and arrays by code have few gaps. There are the more
buckets the more shards there are, so that a bucket holds about as many ids as a few shards.

A shard offers its ids bucket by bucket and numbers them in that order; its code file then holds the code of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.counts import Counts
from pipelines.pieces import from_bytes, to_bytes
from pipelines.places import Place
from recsys.hashing import hash_texts

MIN_BUCKETS, MAX_BUCKETS = 4, 256  # each shard has an element for each bucket

Offer = tuple[int, tuple[str, bytes]]  # bucket, (name of the shard, its ids there with their counts)
Codes = tuple[str, tuple[int, bytes]]  # name of the shard, (bucket, the codes of its ids there)


def buckets_for(shards: int) -> int:
    """How many buckets go with so many shards."""
    return min(max(shards // 4, MIN_BUCKETS), MAX_BUCKETS)


def by_bucket(ids: pa.LargeStringArray, buckets: int) -> tuple[NDArray[np.int64], Counts]:
    """The ids' order by bucket, and how many each bucket holds: ``[ids]`` and ``[buckets]``."""
    bucket = (hash_texts(ids) % np.uint64(buckets)).astype(np.uint16)
    return np.argsort(bucket, kind="stable"), np.bincount(bucket, minlength=buckets)


def offer(shard: str, ids: pa.LargeStringArray, counts: Counts, sizes: Counts) -> Iterator[Offer]:
    """Ids and their counts, ordered and sized as :func:`by_bucket` says, an element a bucket; one if there are none."""
    table = pa.table({"id": ids, "count": counts})
    ends = np.cumsum(sizes)
    for bucket in np.flatnonzero(sizes).tolist() or [0]:
        yield bucket, (shard, to_bytes(table.slice(ends[bucket] - sizes[bucket], sizes[bucket])))


def number(bucket: tuple[int, Iterable[tuple[str, bytes]]], work: Place, buckets: int) -> Iterator[Codes]:
    """Number the ids of a bucket: all of them into ``work/items``, those of each shard for :func:`keep_codes`."""
    place, offers = bucket
    names, parts = zip(*sorted(offers), strict=True)
    tables = [from_bytes(part) for part in parts]
    table = pa.concat_tables(tables)
    encoded = table["id"].combine_chunks().dictionary_encode()
    places = encoded.indices.to_numpy()
    counts = np.bincount(places, table["count"].to_numpy()).astype(np.int64)
    (work / "items" / f"{place:05}").write(to_bytes(pa.table({"id": encoded.dictionary, "count": counts})))
    codes = (places * buckets + place).astype(np.int32)
    ends = np.cumsum([len(part) for part in tables])
    for name, own in zip(names, np.split(codes, ends[:-1]), strict=True):
        yield name, (place, own.tobytes())


def keep_codes(shard: tuple[str, Iterable[tuple[int, bytes]]], work: Place) -> None:
    """Write the codes of a shard for :func:`codes_of`."""
    name, parts = shard
    ordered = np.concatenate([np.frombuffer(codes, np.int32) for _, codes in sorted(parts)])
    (work / "codes" / name).write(to_bytes(pa.table({"code": ordered})))


def codes_of(work: Place, shard: str) -> NDArray[np.int32]:
    """The code of each item of a shard, in the order in which the shard offered them."""
    codes: NDArray[np.int32] = from_bytes((work / "codes" / shard).read())["code"].to_numpy()
    return codes


def total_counts(work: Place, buckets: int) -> Counts:
    """The count of each code: int64 ``[codes]``, 0 where a code is not in use."""
    columns = {place: table["count"].to_numpy() for place, table in _buckets(work)}
    counts = np.zeros(buckets * max(map(len, columns.values()), default=0), np.int64)
    for place, column in columns.items():
        counts[place : place + buckets * len(column) : buckets] = column
    return counts


def ids_of(work: Place, chosen: NDArray[np.bool_], buckets: int) -> tuple[pa.LargeStringArray, NDArray[np.int64]]:
    """The ids of the ``chosen`` codes (bool ``[codes]``) in byte order, and their codes in that order."""
    ids, codes = [], []
    for place, table in _buckets(work):
        own = np.flatnonzero(chosen[place::buckets][: len(table)])
        ids.append(table["id"].take(pa.array(own)))
        codes.append(own * buckets + place)
    joined = pa.concat_arrays([pa.array([], pa.large_string()), *(part for column in ids for part in column.chunks)])
    order = pc.sort_indices(joined)
    return joined.take(order), np.concatenate([np.zeros(0, np.int64), *codes])[order.to_numpy()]


def _buckets(work: Place) -> Iterator[tuple[int, pa.Table]]:
    for place in (work / "items").children():
        yield int(place.name), from_bytes(place.read())
