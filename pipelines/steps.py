"""The Beam steps: read and cut, filter until nothing changes, split and write.

Elements are columns of many clicks, never single ones, and every step works shard by shard: what travels between
workers are Arrow bytes keyed by shard, and counts keyed by a range of items. Files of one step are read by the next
from the work directory, which all workers must see.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions
from numpy.typing import NDArray

from pipelines import shards
from pipelines.clicks import read_clicks
from pipelines.tally import Tally, total
from recsys.columns import Clock
from recsys.dataset import MIN_EVENTS, fingerprint, write_sessions
from recsys.hashing import hash_texts
from recsys.logs.sources import Source
from recsys.manifest import Split
from recsys.sessions import SessionRule, Sessions
from recsys.settings import SessionSettings

ID_BUCKETS = 16
RANGE = 1 << 20  # items whose counts one element carries

Counts = NDArray[np.int64]
RangeCounts = tuple[tuple[str, int], bytes]  # (name, number of the range), int64 counts


@dataclass(frozen=True)
class Job:
    """What all steps of a run share: the runner's options, and the directory of its intermediate files."""

    options: PipelineOptions
    work: Path
    shards: int

    def run(self, step: str, build: Callable[[beam.Pipeline], object]) -> Tally:
        """Run one pipeline; its elements report to ``work/tallies/step``, whose total comes back."""
        with beam.Pipeline(options=self.options) as pipeline:
            build(pipeline)
        reports = (self.work / "tallies" / step).glob("[!.]*")
        return total(Tally.from_json(path.read_bytes()) for path in reports)


def read_and_cut(job: Job, sources: list[Source], clock: Clock, rule: SessionRule) -> Tally:
    """Read all sources and cut sessions: a file for each shard in ``work/cut``, all ids in ``work/ids``."""

    def build(pipeline: beam.Pipeline) -> None:
        (
            pipeline
            | "Sources" >> beam.Create(list(enumerate(sources)))
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(_read, clock, job.work, job.shards)
            | "ByShard" >> beam.GroupByKey()
            | "Cut" >> beam.FlatMap(_cut, rule, job.work)
            | "ByBucket" >> beam.GroupByKey()
            | "MergeIds" >> beam.Map(_merge_ids, job.work)
        )

    return job.run("read", build)


def gather_ids(work: Path, kind: str) -> pa.LargeStringArray:
    """All ids of a kind (``item`` or ``type``) in byte order, kept in one file: an id's code is its place there."""
    buckets = [shards.from_bytes(path.read_bytes())["id"] for path in sorted((work / "ids").glob(f"{kind}-*"))]
    ids = pa.chunked_array([chunk for bucket in buckets for chunk in bucket.chunks], pa.large_string())
    ids = ids.take(pc.sort_indices(ids)).combine_chunks()
    shards.write_whole(work / f"{kind}.arrow", shards.to_bytes(pa.table({"id": ids})))
    return ids


def filter_once(job: Job, number: int, settings: SessionSettings, items: int) -> Tally:
    """One pass of the filters over ``items`` item codes, from ``work/cut`` or the pass before to ``work/pass-number``.

    Support is counted over all shards at the end of each pass, and the next pass applies it.
    """
    before = job.work / ("cut" if number == 0 else f"pass-{number - 1}")
    return _over_shards(job, f"filter-{number}", before, f"counts-{number}", _filter, number, settings, items)


def count_split(job: Job, passes: int, split: Split, items: int) -> None:
    """Count the items of training and validation sessions into ``work/counts-split``."""
    _over_shards(job, "count", job.work / f"pass-{passes}", "counts-split", _count_split, split, items)


def write_split(job: Job, passes: int, split: Split, rows: NDArray[np.int32], directory: Path) -> Tally:
    """Write the sessions of each part into ``directory``; ``rows`` has the vocabulary row of each item code.

    The items of test sessions are counted, by vocabulary row, into ``work/counts-split``.
    """
    shards.write_whole(job.work / "rows", rows.tobytes())
    return _over_shards(job, "write", job.work / f"pass-{passes}", "counts-split", _write_split, split, directory)


def _over_shards(job: Job, step: str, files: Path, counts: str, function: Callable[..., Any], *arguments: Any) -> Tally:
    """Run ``function`` on each shard file; the counts by range that it yields are added up in ``work/counts``."""

    def build(pipeline: beam.Pipeline) -> None:
        (
            pipeline
            | "Shards" >> beam.Create(sorted(str(path) for path in files.glob("[!.]*")))
            | "Work" >> beam.FlatMap(function, job.work, *arguments)
            | "Sum" >> beam.CombinePerKey(_add)
            | "WriteCounts" >> beam.Map(_write_range, job.work / counts)
        )

    return job.run(step, build)


def read_counts(directory: Path, name: str, items: int) -> Counts:
    """The counts called ``name`` of all item codes: int64 ``[items]``."""
    counts = np.zeros(items, np.int64)
    for path in directory.glob(f"{name}-*"):
        first = int(path.name.rpartition("-")[2]) * RANGE
        part = np.frombuffer(path.read_bytes(), np.int64)
        counts[first : first + len(part)] = part
    return counts


def divide(sessions: Sessions, users: pa.Array, split: Split) -> tuple[dict[str, tuple[Sessions, pa.Array]], Tally]:
    """The sessions of each part, by when they begin, each cut at the test boundary, and what fell to the cuts."""
    never = np.iinfo(np.int64).max
    test_from = never if split.test_from is None else split.test_from
    validation_from = test_from if split.validation_from is None else split.validation_from
    begins = sessions.times[sessions.starts[:-1]]
    late = (sessions.times >= test_from) & (begins < test_from)[sessions.owner]
    before = sessions.keep_events(~late)
    counts = Counter({"cut/after_test_boundary": int(np.count_nonzero(late))})
    chosen = {
        "train": begins < validation_from,
        "validation": (begins >= validation_from) & (begins < test_from),
        "test": begins >= test_from,
    }
    parts = {}
    for name, choice in chosen.items():
        long = choice & (before.lengths >= MIN_EVENTS)
        counts["cut/too_short"] += int(before.lengths[choice & ~long].sum())
        parts[name] = before.keep_sessions(long), users.filter(pa.array(long))
    return parts, Tally(counts)


def _read(numbered: tuple[int, Source], clock: Clock, work: Path, count: int) -> Iterator[tuple[int, bytes]]:
    number, source = numbered
    tallies = []
    for events, tally in read_clicks(source, number, clock, work):
        tallies.append(tally)
        if events is not None and len(events):
            yield from shards.partition(events, count)
    _report(work, "read", f"file-{number:06}", total(tallies))


def _cut(shard: tuple[int, Iterable[bytes]], rule: SessionRule, work: Path) -> Iterator[tuple[tuple[str, int], bytes]]:
    number, pieces = shard
    made, users, items, types = shards.cut(pieces, rule)
    shards.save(work / "cut" / f"{number:05}", made.sessions, users)
    shards.write_whole(work / "cut-items" / f"{number:05}", shards.to_bytes(pa.table({"id": items})))
    shards.write_whole(work / "cut-types" / f"{number:05}", shards.to_bytes(pa.table({"id": types})))
    _report(work, "read", f"shard-{number:05}", Tally(Counter(duplicates=made.duplicates, repeats=made.repeats)))
    yield ("type", 0), shards.to_bytes(pa.table({"id": types}))
    bucket = hash_texts(items) % np.uint64(ID_BUCKETS)
    for part in range(ID_BUCKETS):
        yield ("item", part), shards.to_bytes(pa.table({"id": items.filter(pa.array(bucket == part))}))


def _merge_ids(bucket: tuple[tuple[str, int], Iterable[bytes]], work: Path) -> None:
    (kind, number), pieces = bucket
    ids = pc.unique(pa.concat_tables([shards.from_bytes(piece) for piece in pieces])["id"])
    shards.write_whole(work / "ids" / f"{kind}-{number:05}", shards.to_bytes(pa.table({"id": ids})))


def _filter(path: str, work: Path, number: int, settings: SessionSettings, items: int) -> Iterator[RangeCounts]:
    sessions, users = shards.load(Path(path))
    filtered: Counter[str] = Counter()
    keep = np.ones(len(sessions), np.bool_)
    if number == 0:
        name = Path(path).name
        sessions = Sessions(
            _codes(work, "item", name)[sessions.items].astype(np.int32),
            sessions.times,
            _codes(work, "type", name)[sessions.types].astype(np.int8),
            sessions.starts,
        )
        keep = sessions.lengths <= settings.max_length
        filtered["filtered/too_long"] = int(sessions.lengths[~keep].sum())
    else:
        support = read_counts(work / f"counts-{number - 1}", "support", items)
        common = support[sessions.items] >= settings.min_item_support
        filtered["filtered/rare_item"] = int(np.count_nonzero(~common))
        sessions = sessions.keep_events(common)
    short = sessions.lengths < settings.min_length
    filtered["filtered/too_short"] = int(sessions.lengths[short].sum())
    keep &= ~short
    sessions, users = sessions.keep_sessions(keep), users.filter(pa.array(keep))
    shards.save(work / f"pass-{number}" / Path(path).name, sessions, users)
    _report(work, f"filter-{number}", Path(path).name, Tally(filtered))
    yield from _ranges("support", sessions.items, items)


def _codes(work: Path, kind: str, shard: str) -> NDArray[np.int64]:
    """The code of each id of a shard among all ids."""
    ids, all_ids = (
        shards.from_bytes(path.read_bytes())["id"] for path in (work / f"cut-{kind}s" / shard, work / f"{kind}.arrow")
    )
    codes: NDArray[np.int64] = pc.index_in(ids, all_ids).to_numpy().astype(np.int64)
    return codes


def _count_split(path: str, work: Path, split: Split, items: int) -> Iterator[RangeCounts]:
    parts, _ = divide(*shards.load(Path(path)), split)
    for name in ("train", "validation"):
        yield from _ranges(name, parts[name][0].items, items)


def _write_split(path: str, work: Path, split: Split, directory: Path) -> Iterator[RangeCounts]:
    rows = np.frombuffer((work / "rows").read_bytes(), np.int32)
    parts, tally = divide(*shards.load(Path(path)), split)
    for name, (coded, owners) in parts.items():
        sessions, users = Sessions(rows[coded.items], coded.times, coded.types, coded.starts), owners
        if name == "test":
            known = sessions.items >= 0
            tally.counts["cut/unknown_item"] += int(np.count_nonzero(~known))
            sessions = sessions.keep_events(known)
            long = sessions.lengths >= MIN_EVENTS
            tally.counts["cut/too_short"] += int(sessions.lengths[~long].sum())
            sessions, users = sessions.keep_sessions(long), users.filter(pa.array(long))
            yield from _ranges(name, sessions.items, len(rows))
        if len(sessions):
            write_sessions(directory / name / f"{Path(path).name}.parquet", sessions, users)
        tally.counts[f"events/{name}"] += sessions.events
        tally.counts[f"sessions/{name}"] += len(sessions)
        tally.fingerprints[name] = fingerprint(sessions, users)
    _report(work, "write", Path(path).name, tally)


def _report(work: Path, step: str, name: str, tally: Tally) -> None:
    shards.write_whole(work / "tallies" / step / name, tally.to_json())


def _ranges(name: str, codes: NDArray[np.int32], items: int) -> Iterator[RangeCounts]:
    """How often each of ``items`` codes occurs, a range of codes an element."""
    counts = np.bincount(codes, minlength=items).astype(np.int64)
    for number, first in enumerate(range(0, items, RANGE)):
        yield (name, number), counts[first : first + RANGE].tobytes()


def _add(parts: Iterable[bytes]) -> bytes:
    """The sum of count arrays (of none: no bytes)."""
    arrays = [np.frombuffer(part, np.int64) for part in parts if part]
    return np.sum(arrays, axis=0, dtype=np.int64).tobytes() if arrays else b""


def _write_range(summed: RangeCounts, directory: Path) -> None:
    (name, number), counts = summed
    shards.write_whole(directory / f"{name}-{number:05}", counts)
