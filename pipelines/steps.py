"""The Beam steps: read and cut, drop what is rare until nothing changes, split and write.

Elements are columns of many clicks or say where these lie, never single clicks, and every step works shard by shard.
What grows with the log goes through files of the work directory, which all workers must see; Beam carries names of
files, and ids and counts of a bounded range of items. (Where the work directory is no disk, Beam carries clicks too.)
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions
from numpy.typing import NDArray

from pipelines import bots, filters, numbers, shards, split
from pipelines.clicks import read_clicks
from pipelines.counts import write_counts
from pipelines.kept import Keeping
from pipelines.pieces import NO_PIECE, Piece, from_bytes, read_pieces, to_bytes
from pipelines.places import Place
from pipelines.runner import run_pipeline
from pipelines.tally import Tally, read_reports, report, total
from recsys.columns import Clock
from recsys.logs.letters import Letters
from recsys.logs.sources import Source
from recsys.manifest import Split
from recsys.pseudonyms import Pseudonyms
from recsys.sessions import Sessions
from recsys.settings import SessionSettings


@dataclass(frozen=True)
class Job:
    """What all steps of a run share: the runner's options, the directories of its intermediate files and of the
    sessions it writes, how many shards users are spread over, how many threads read one source, where clicks are kept,
    and what user ids become, if not what they are."""

    options: PipelineOptions
    work: Place
    sessions: Place
    shards: int
    threads: int
    keeping: Keeping
    pseudonyms: Pseudonyms | None = None

    @property
    def buckets(self) -> int:
        """How many parts the items are numbered in."""
        return numbers.buckets_for(self.shards)

    def run(self, step: str, build: Callable[[beam.Pipeline], object]) -> Tally:
        """Run one pipeline; the total of what its elements report comes back."""
        run_pipeline(self.options, build)
        return read_reports(self.work, step)


def read_and_cut(
    job: Job, sources: list[Source], clock: Clock, letters: Mapping[str, Letters], settings: SessionSettings
) -> Tally:
    """Read all sources and cut sessions: a file for each shard in ``work/cut``, all items in ``work/items``."""

    waiting = [(shard, NO_PIECE) for shard in job.keeping.earlier]

    def build(pipeline: beam.Pipeline) -> None:
        pieces = _spread(pipeline, list(enumerate(sources))) | "Read" >> beam.FlatMap(
            read_clicks, clock, letters, job.work, "read", job.shards, job.threads, job.pseudonyms
        )
        (
            (pieces, pipeline | "Earlier" >> beam.Create(waiting, reshuffle=False))
            | "All" >> beam.Flatten()
            | "ByShard" >> beam.GroupByKey()
            | "Cut" >> beam.FlatMap(_cut, settings, job.work, job.buckets, job.keeping)
            | "ByBucket" >> beam.GroupByKey()
            | "Number" >> beam.FlatMap(numbers.number, job.work, job.buckets)
            | "OfShard" >> beam.GroupByKey()
            | "KeepCodes" >> beam.Map(numbers.keep_codes, job.work)
        )

    return job.run("read", build)


def gather_types(work: Place) -> pa.LargeStringArray:
    """All event types in byte order, kept in ``work/types.arrow``: a type's code is its place there."""
    parts = [from_bytes(data)["id"] for data in (work / "types").contents()]
    types = pc.unique(pa.chunked_array([chunk for part in parts for chunk in part.chunks], pa.large_string()))
    types = types.take(pc.sort_indices(types))
    (work / "types.arrow").write(to_bytes(pa.table({"id": types})))
    return types


def leave_out_bots(job: Job, limits: bots.Limits, settings: SessionSettings, listed: Path) -> Tally:
    """Drop the users that click more than ``limits`` and list them, then sessions that are too long or too short.

    What falls, by item, is counted into ``work/lost-bots``.
    """
    tally = _over_shards(job, "bots", "lost-bots", bots.leave_out, "bots", limits, settings)
    bots.settle(job.work, listed)
    return tally


def drop_rare(job: Job, number: int, settings: SessionSettings) -> Tally:
    """Pass ``number`` of the filters: what sessions lose, by item, is counted into ``work/lost-number``."""
    step = f"drop-{number}"
    return _over_shards(job, step, f"lost-{number}", filters.drop_rare, step, number, settings)


def count_split(job: Job, parts: Split, settings: SessionSettings) -> None:
    """Count the items of training and validation sessions into ``work/counts``."""
    _over_shards(job, "count", "counts", split.count_items, "count", parts, settings)


def write_split(job: Job, parts: Split, settings: SessionSettings, rows: NDArray[np.int32]) -> Tally:
    """Write the sessions of each part into ``job.sessions``; ``rows`` has the vocabulary row of each item code.

    The items of test sessions are counted, by vocabulary row, into ``work/counts``.
    """
    (job.work / "rows").write(rows.tobytes())
    return _over_shards(job, "write", "counts", split.write_parts, "write", parts, settings, job.sessions)


def _over_shards(job: Job, step: str, counts: str, function: Callable[..., Any], *arguments: Any) -> Tally:
    """Run ``function`` on each shard; the counts that it yields are added up in ``work/counts``."""

    def build(pipeline: beam.Pipeline) -> None:
        (
            _spread(pipeline, shards.shards_of(job.work))
            | "Work" >> beam.FlatMap(function, job.work, *arguments)
            | "ByRange" >> beam.GroupByKey()
            | "Add" >> beam.Map(write_counts, job.work / counts)
        )

    return job.run(step, build)


def _spread(pipeline: beam.Pipeline, elements: Sequence[Any]) -> Any:
    """The elements, each where a worker is free. (``beam.Reshuffle`` does that too, at twice the price.)"""
    return (
        pipeline
        | "Elements" >> beam.Create(list(enumerate(elements)), reshuffle=False)
        | "Spread" >> beam.GroupByKey()
        | "Each" >> beam.FlatMap(lambda numbered: numbered[1])
    )


def _cut(
    shard: tuple[int, Iterable[Piece]], settings: SessionSettings, work: Place, buckets: int, keeping: Keeping
) -> Iterator[numbers.Offer]:
    """Cut a shard, drop sessions that are too long or short, and offer the items of the others to be numbered."""
    name = f"{shard[0]:05}"
    clicks, known = keeping.arrange(shard[0], read_pieces(shard[1]), settings.rule)
    cut = shards.Shard.of(clicks)
    if settings.drops_bots:  # first, whole, and when the limits are known
        keep, tally = np.ones(len(cut.made.sessions), np.bool_), Tally()
        tally.counts += bots.keep_peaks(work, name, bots.peaks_of(cut.made.sessions, cut.users))
    else:
        keep, tally = filters.first_filter(cut.made.sessions, settings)
    tally.counts += Counter(duplicates=cut.made.duplicates, repeats=cut.made.repeats)
    sessions = cut.made.sessions.keep_sessions(keep)
    counts = np.bincount(sessions.items, minlength=len(cut.items))
    used = np.flatnonzero(counts)
    order, sizes = numbers.by_bucket(cut.items.take(pa.array(used)), buckets)
    offered = used[order]
    places = np.zeros(len(cut.items), np.int32)
    places[offered] = np.arange(len(offered))
    sessions = Sessions(places[sessions.items], sessions.times, sessions.types, sessions.starts)
    shards.save(work / "cut" / name, sessions, cut.users.filter(pa.array(keep)))
    (work / "types" / name).write(to_bytes(pa.table({"id": cut.types})))
    report(work, "read", f"shard-{name}", total([tally, known]))
    yield from numbers.offer(name, cut.items.take(pa.array(offered)), counts[offered], sizes)
