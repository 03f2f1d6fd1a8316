"""A session dataset from click logs, from the first byte read to the last one written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pipelines import steps
from pipelines.again import Log
from pipelines.append import Earlier
from pipelines.bots import Limits, limits_of
from pipelines.boundaries import Boundaries
from pipelines.counts import read_counts
from pipelines.filters import STAYS, newly_rare, write_leaves
from pipelines.kept import Keeping
from pipelines.keys import key_of
from pipelines.numbers import ids_of, total_counts
from pipelines.places import BeamFiles, Local, Place, place
from pipelines.progress import Stages
from pipelines.rejected import check_read, gather_dead_letters, prepend
from pipelines.runner import runner_of
from pipelines.sizing import CLICK_BYTES, bytes_of, more_shards, shards_for
from pipelines.tally import Tally, total
from recsys.columns import Clock
from recsys.dataset import KEPT, SPLITS, finish
from recsys.errors import InputError
from recsys.files import link, staged_directory
from recsys.logs.files import Files
from recsys.logs.letters import Letters, Retry, find_letters
from recsys.logs.sources import Layout, Source, find_sources
from recsys.manifest import DatasetFile, Manifest
from recsys.pseudonyms import Pseudonyms
from recsys.settings import SessionSettings
from recsys.vocabulary import Vocabulary

MAX_TYPES = 127  # codes are int8


@dataclass(frozen=True)
class Request:
    """What to build: the logs and how to read them, the time split, and where sessions go.

    Dead letters to ``retry`` stand for the lines that they came from. What is built holds the clicks of the
    ``earlier`` dataset too. ``work`` is the path or URL of a directory for intermediate files, which all of Beam's
    workers must see. With ``pseudonyms`` these stand for user ids, and dead letters do not quote their lines.
    """

    inputs: Sequence[str]
    out: Path
    settings: SessionSettings
    mapping: dict[str, str] = field(default_factory=dict)
    layout: Layout = field(default_factory=Layout)
    clock: Clock = field(default_factory=Clock)
    retry: Retry | None = None
    boundaries: Boundaries = field(default_factory=Boundaries)
    max_bad: float = 0.05
    shards: int | None = None
    memory_mib: int = 2048
    overwrite: bool = False
    pseudonyms: Pseudonyms | None = None
    work: str | None = None
    keep_clicks: bool = True
    earlier: Earlier | None = None
    beam_flags: tuple[str, ...] = ()


def build_dataset(request: Request) -> Manifest:
    """Run the pipeline; the dataset is at ``request.out`` when this returns, and not before.

    Raises:
        MissingInputError: no input, or no events in it.
        InputError: input that cannot be used, or too many lines that cannot be read; these are then beside ``out``.
        DatasetError: events got lost on the way.
    """
    files = BeamFiles(request.beam_flags)
    sources = find_sources(request.inputs, request.mapping, request.layout, files)
    letters = find_letters(request.retry, sources, files) if request.retry else {}
    key = key_of(sources, request.pseudonyms)
    earlier = request.earlier
    if earlier:
        earlier.check(sources, key)
    unchanged = partial(earlier.manifest.check_unchanged, earlier.path) if earlier else None
    staged = staged_directory(request.out, overwrite=request.overwrite, check=unchanged)
    with staged as directory, _work_of(request, directory) as work:
        options, workers = runner_of(request.beam_flags)
        written = work / "sessions" if request.work else Local(directory)
        shards = _shards(request, bytes_of(sources), workers)
        job = steps.Job(
            options=options,
            work=work,
            sessions=written,
            shards=shards,
            threads=math.ceil(workers / len(sources)),
            pseudonyms=request.pseudonyms,
            keeping=_keeping(request, written, work, shards),
        )
        if request.work:
            letters = _with_letters(work / "letters.jsonl", files, letters)
        manifest = _build(request, job, sources, letters, key, directory)
    _kept_dead_letters(request).unlink(missing_ok=True)
    return manifest


@contextmanager
def _work_of(request: Request, directory: Path) -> Iterator[Place]:
    """The directory of intermediate files while the block lasts: inside the new dataset if no other is asked for."""
    if request.work is None:
        work: Place = Local(directory / ".work")
    else:
        work = place(request.work, request.beam_flags) / f"{request.out.name}-{uuid4().hex}"
    try:
        yield work
    finally:
        work.delete()


def _shards(request: Request, size: int, workers: int) -> int:
    """How many shards there are for logs of so many bytes; where a dataset is added to, they can only be divided."""
    if request.earlier is None:
        return request.shards or shards_for(size, request.memory_mib, workers)
    size += CLICK_BYTES * request.earlier.rows
    return more_shards(request.earlier.shards, size, request.memory_mib, workers)


def _keeping(request: Request, written: Place, work: Place, shards: int) -> Keeping:
    """Where clicks are kept, and where those of the earlier dataset are: where all workers see them."""
    into = written / KEPT if request.keep_clicks else None
    if not (earlier := request.earlier):
        return Keeping(into)
    found: dict[int, list[Place]] = {}
    for shard, paths in earlier.clicks.items():
        places: list[Place] = [Local(path) for path in paths]
        if request.work:
            places = [work / "earlier" / path.name for path in paths]
            for place, path in zip(places, paths, strict=True):
                place.write(path.read_bytes())
        found |= dict.fromkeys(range(shard, shards, earlier.shards), places)
    divided = shards if shards > earlier.shards else None
    return Keeping(into, found, bool(divided) or earlier.overgrown, divided)


def _with_letters(copy: Place, files: Files, letters: Mapping[str, Letters]) -> dict[str, Letters]:
    """The same letters, all of one file, read from a copy that all workers see."""
    for name in {found.name for found in letters.values()}:
        with files.open(name) as file:
            copy.write(file.read())
    return {name: replace(found, name=copy.address) for name, found in letters.items()}


def _build(
    request: Request,
    job: steps.Job,
    sources: list[Source],
    letters: Mapping[str, Letters],
    key: str | None,
    directory: Path,
) -> Manifest:
    stages = Stages(job.work)
    read = _read(request, job, stages, sources, letters, directory / "dead-letter.jsonl")
    types = steps.gather_types(job.work)
    _check_types(len(types))
    assert read.first_ms is not None
    assert read.last_ms is not None
    hours = {int(hour): clicks for hour, clicks in read.group("hour").items()}
    split = request.boundaries.resolve(read.first_ms, read.last_ms, hours)

    limits = limits_of(request.settings, read)
    filtered, codes = _filter(request, job, stages, limits, directory / "bots.jsonl")
    with stages.shards("counting", "count"):
        steps.count_split(job, split, request.settings)
    counts = {name: read_counts(job.work / "counts", name, codes) for name in SPLITS[:2]}
    vocabulary, rows = _vocabulary(job, counts["train"] + counts["validation"])
    with stages.shards("writing", "write"):
        written = steps.write_split(job, split, request.settings, rows)
    counts["test"] = read_counts(job.work / "counts", "test", len(vocabulary))
    tally = total([read, filtered, written])
    if request.earlier:
        tally.counts["forgotten"] = request.earlier.forgotten(read)
    if tally.counts["events/train"] == 0:
        raise InputError(f"no sessions are left to train on: {tally.fates()}")
    files = _fetch(request, job, tally, directory)
    job.work.delete()
    return finish(
        directory,
        vocabulary=vocabulary,
        settings=request.settings,
        event_types=types.to_pylist(),
        split=split,
        counts=tally.fates(),
        sizes={name: tally.size(name, int(np.count_nonzero(counts[name]))) for name in SPLITS},
        fingerprints=written.fingerprints,
        parameters=_parameters(request, job, sources, limits, key),
        known=files,
    )


def _read(
    request: Request,
    job: steps.Job,
    stages: Stages,
    sources: list[Source],
    letters: Mapping[str, Letters],
    dead_letters: Path,
) -> Tally:
    """Read and cut, and write down what cannot be used; the tally of all logs, earlier ones among them."""
    with stages.reading(sum(source.size for source in sources)):
        read = steps.read_and_cut(job, sources, request.clock, letters, request.settings)
    (job.work / "pieces").delete()
    gather_dead_letters(job.work, dead_letters)
    check_read(read, request.inputs, request.max_bad, dead_letters, _kept_dead_letters(request))
    if earlier := request.earlier:
        read = total([earlier.tally, read])
        prepend(earlier.dead_letters, dead_letters)
    return read


def _fetch(request: Request, job: steps.Job, written: Tally, directory: Path) -> list[DatasetFile]:
    """Bring all Parquet files into ``directory``, where they do not lie there already: those of this run, and those of
    earlier clicks that stay as they are."""
    if job.sessions != Local(directory):
        for name in written.files:
            (Local(directory) / name).write((job.sessions / name).read())
    files = [DatasetFile(path=name, rows=rows, sha256=sha) for name, (rows, sha) in written.files.items()]
    if job.keeping.anew or not job.keeping.into or not (earlier := request.earlier):
        return files
    for entry in earlier.kept:
        link(earlier.path / entry.path, directory / entry.path)
    return [*files, *earlier.kept]


def _filter(request: Request, job: steps.Job, stages: Stages, limits: Limits, bots: Path) -> tuple[Tally, int]:
    """Drop bots, then rare items until none is left; what fell, and how many item codes there are."""
    support = total_counts(job.work, job.buckets)
    tallies: list[Tally] = []
    if request.settings.drops_bots:
        with stages.shards("leaving out bots", "bots"):
            tallies.append(steps.leave_out_bots(job, limits, request.settings, bots))
        support -= read_counts(job.work / "lost-bots", "lost", len(support))
    leaves = np.full(len(support), STAYS, np.int32)
    write_leaves(job.work, leaves)
    number = 0
    while (rare := newly_rare(support, leaves, request.settings)).any():
        leaves[rare] = number
        write_leaves(job.work, leaves)
        with stages.shards(f"filtering, pass {number + 1}", f"drop-{number}"):
            tallies.append(steps.drop_rare(job, number, request.settings))
        support -= read_counts(job.work / f"lost-{number}", "lost", len(support))
        number += 1
    return total(tallies), len(support)


def _check_types(types: int) -> None:
    """Refuse more event types than a code can tell apart."""
    if types > MAX_TYPES:
        raise InputError(
            f"the log has {types} event types, at most {MAX_TYPES} can be told apart: is the column right?"
        )


def _vocabulary(job: steps.Job, counts: NDArray[np.int64]) -> tuple[Vocabulary, NDArray[np.int32]]:
    """The items that occur before the test split, and the row of each item code (-1: not in the vocabulary)."""
    ids, codes = ids_of(job.work, counts > 0, job.buckets)
    rows = np.full(len(counts), -1, np.int32)
    rows[codes] = np.arange(len(codes))
    return Vocabulary(ids.to_pylist(), counts[codes]), rows


def _kept_dead_letters(request: Request) -> Path:
    """Where the bad lines of a run stay that was refused for them."""
    return request.out.with_name(f"{request.out.name}.dead-letter.jsonl")


def _parameters(
    request: Request, job: steps.Job, sources: list[Source], limits: Limits, key: str | None
) -> dict[str, JsonValue]:
    logs = [Log.of(sources, request.mapping, request.layout, request.clock)]
    letters = request.retry.name if request.retry else None
    if earlier := request.earlier:
        logs, letters = [*earlier.logs, *logs], earlier.from_dead_letter
    return {
        "logs": [log.to_json() for log in logs],
        "from_dead_letter": letters,
        "max_bad": request.max_bad,
        "key": key,
        "boundaries": dict(vars(request.boundaries)),
        "shards": job.shards,
        "bot_clicks": {window: limit for window, limit in vars(limits).items() if limit is not None},
    }
