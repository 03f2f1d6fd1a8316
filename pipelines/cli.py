"""``recsys sessions``: click logs in, session dataset out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recsys.cli.logs import LogFlags, with_log_flags
from recsys.cli.options import MOMENT, FiniteRange, with_settings
from recsys.settings import Settings

if TYPE_CHECKING:
    from recsys.manifest import Manifest


@click.command()
@click.argument("inputs", nargs=-1, metavar="INPUT... [-- BEAM_FLAGS...]")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory of the dataset.")
@with_log_flags
@click.option(
    "--from-dead-letter", type=click.Path(path_type=Path), metavar="DATASET", help="Instead of INPUT; see above."
)
@click.option("--letters", type=click.Path(path_type=Path), help="Its dead letters, mended. [default: those inside]")
@click.option("--test-from", type=MOMENT, help="Test sessions begin at or after this (date, RFC 3339 or epoch ms).")
@click.option("--test-days", type=FiniteRange(min=0), help="Or: in the last N days. 0: no test split.")
@click.option("--validation-from", type=MOMENT, help="Validation sessions begin at or after this.")
@click.option("--validation-days", type=FiniteRange(min=0), help="Or: in the N days before test. 0: none.")
@click.option("--max-bad", type=FiniteRange(0, 1), default=0.05, show_default=True, help="Share of bad lines.")
@click.option("--now", type=MOMENT, help="Clicks more than a day after this are bad. [default: the clock]")
@click.option("--shards", type=click.IntRange(1, 10_000), help="Parts that users are spread over. [default: by size]")
@click.option("--overwrite", is_flag=True, help="Replace an existing dataset.")
@click.option("--work", metavar="DIR|URL", help="Where Beam's workers exchange files. [default: inside the dataset]")
@click.option("--append", is_flag=True, help="Add the clicks of INPUT to the dataset at --out; see above.")
@with_settings("sessions", "pipeline")
def sessions(
    settings: Settings,
    inputs: tuple[str, ...],
    out: Path,
    log: LogFlags,
    from_dead_letter: Path | None,
    letters: Path | None,
    test_from: int | None,
    test_days: float | None,
    validation_from: int | None,
    validation_days: float | None,
    max_bad: float,
    now: int | None,
    shards: int | None,
    overwrite: bool,
    work: str | None,
    append: bool,
) -> None:
    """Build a session dataset from click logs with Beam.

    INPUT is a file, a glob or a directory of CSV, JSON lines, Parquet or Avro, plain or compressed by gzip or zstd.

    \b
    recsys sessions clicks.csv.gz --out dataset
    recsys sessions logs/ --out dataset --column item=product_id --test-days 2
    recsys sessions yoochoose-clicks.dat --preset yoochoose --out dataset
    recsys sessions 'logs/*.parquet' --out dataset -- --runner=FlinkRunner --flink_master=localhost:8081

    FIELD is user, item, timestamp, event_type, event_id or session. Usual names (user_id, visitor_id, item_id,
    product_id, timestamp, event_time, ...) are found without --column. With a session column the log's own sessions
    are used instead of the gap rule; a log without users takes the session as the user. Times are numbers in the
    --time-unit (seconds may have a fraction), RFC 3339, or of the --time-format, in UTC where they name no zone.

    Presets are yoochoose, diginetica, retailrocket, otto, rees46 and globo: logs as they are published. What other
    options say goes before what the preset says.

    Time is split by when sessions begin. Without options, test is the last day of a log that spans more than two days
    and the last tenth of a shorter one, and validation is as long, before it. A log ends with its last click, or before
    its last 0.5% of clicks where these trickle in over more than a day.

    Users that click more than --bot-clicks-per-minute or --bot-clicks-per-day, in minutes of the clock and days of UTC,
    are dropped whole and go to bots.jsonl. Learnt limits are 4 times what 95% of the users stay below, 20 a minute and
    200 a day at least.

    Lines that cannot be used go to dead-letter.jsonl in the dataset, with file, line, reason and text. If they are more
    than --max-bad of all, no dataset is written and the command ends with exit code 65. --from-dead-letter builds a
    dataset again from its logs, which are read as they were then, but for the lines in its dead letters: these are read
    as the options say now, from a copy of dead-letter.jsonl in which you mended "text", if you name one by --letters.
    (The time split and what the settings say go by the options of now for all.)

    \b
    recsys sessions --from-dead-letter dataset --time-format '%d.%m.%Y %H:%M' --out mended
    recsys sessions --from-dead-letter dataset --letters by-hand.jsonl --out mended

    --append adds a log, such as the next day's, to a dataset, which keeps all clicks for that. It is then what all its
    logs together would have given, in less time. The new log is read, time is split and sessions are filtered as when
    the dataset was built, unless options say otherwise; what cuts sessions cannot change.

    \b
    recsys sessions tuesday.csv.gz --out dataset --append

    With the setting privacy.key (in the environment or the settings file) user ids are hashed in all that the dataset
    holds, those of an archive that has them so by the same key stay, and dead letters do not quote the lines.

    Flags after -- go to Beam. INPUT and --work may be on any filesystem that Beam knows (s3://, gs://, hdfs://); where
    Beam's workers are on other machines, --work must be what all of them see. The README has the flags of Flink, Spark
    and Dataflow.
    """
    import logging

    logging.getLogger().setLevel(logging.CRITICAL)  # Beam warns of absent cloud packages, and logs what it raises

    from pipelines.append import Earlier
    from pipelines.boundaries import DAY_MS, Boundaries
    from pipelines.build import Request, build_dataset
    from recsys.pseudonyms import Pseudonyms

    files = [name for name in inputs if not name.startswith("--")]
    _check(click.get_current_context().params, bool(files))
    now_ms = int(time.time() * 1000) if now is None else now
    earlier = Earlier.open(out) if append else None
    if from_dead_letter is None:
        known = earlier.logs[-1].reading if earlier else None
        reading = {"inputs": files, **vars(log.reading(now_ms, DAY_MS, known))}
    else:
        reading = _again(from_dead_letter, letters, log, now_ms)
    boundaries = Boundaries(test_from, test_days, validation_from, validation_days)
    request = Request(
        **reading,
        out=out,
        settings=earlier.settings(settings.sessions) if earlier else settings.sessions,
        boundaries=earlier.boundaries(boundaries) if earlier else boundaries,
        max_bad=max_bad,
        shards=shards,
        memory_mib=settings.pipeline.memory_mib,
        overwrite=overwrite or append,
        pseudonyms=Pseudonyms.of_settings(settings.privacy),
        work=work,
        keep_clicks=settings.pipeline.keep_clicks,
        earlier=earlier,
        beam_flags=tuple(flag for flag in inputs if flag.startswith("--")),
    )
    began = time.monotonic()
    manifest = build_dataset(request)
    _show(manifest, out, earlier.manifest.counts.read if earlier else 0, time.monotonic() - began)


def _check(options: dict[str, Any], inputs: bool) -> None:
    """Refuse options that do not go together; ``inputs`` says whether there are any.

    Raises:
        click.UsageError: says which.
    """
    for split in ("test", "validation"):
        if options[f"{split}_from"] is not None and options[f"{split}_days"] is not None:
            raise click.UsageError(f"--{split}-from and --{split}-days exclude each other")
    again: Path | None = options["from_dead_letter"]
    if again is None and options["letters"] is not None:
        raise click.UsageError("--letters goes with --from-dead-letter")
    if (again is None) != inputs:
        raise click.UsageError("either INPUT or --from-dead-letter is needed")
    if again is not None and again.resolve() == options["out"].resolve():
        raise click.UsageError("--from-dead-letter reads that dataset: --out must be another one")
    if options["append"] and (options["overwrite"] or options["shards"] is not None or again is not None):
        raise click.UsageError("--append excludes --overwrite, --shards and --from-dead-letter")


def _again(dataset: Path, letters: Path | None, log: LogFlags, now_ms: int) -> dict[str, Any]:
    """The logs of a dataset and how they were read; how its dead letters are to be read, by the flags."""
    from pipelines.again import recorded
    from pipelines.boundaries import DAY_MS
    from recsys.logs.letters import Retry

    inputs, known = recorded(dataset)
    retry = Retry(str(letters or dataset / "dead-letter.jsonl"), **vars(log.reading(now_ms, DAY_MS, known)))
    return {"inputs": inputs, **vars(LogFlags().reading(now_ms, DAY_MS, known)), "retry": retry}


def _show(manifest: Manifest, out: Path, before: int, seconds: float) -> None:
    """The summary: what became of every click, and what each split holds; so many clicks were there ``before``."""
    from rich.table import Table

    from recsys.console import output

    counts = manifest.counts
    fates = Table("clicks", "count", title="What became of every click", title_justify="left")
    fates.columns[1].justify = "right"
    for name, n in counts.fates().items():
        fates.add_row(name, f"{n:,}")
    splits = Table("split", "clicks", "sessions", "items", title="Sessions", title_justify="left")
    for column in splits.columns[1:]:
        column.justify = "right"
    for name, size in manifest.sizes.items():
        splits.add_row(name, f"{size.events:,}", f"{size.sessions:,}", f"{size.items:,}")
    output.print(fates, splits)
    for name, boundary in (("validation", manifest.split.validation_from), ("test", manifest.split.test_from)):
        if boundary is not None and not manifest.sizes[name].sessions:
            output.print(f"warning: no {name} session begins where that split was asked for", style="yellow")
    rejected = sum(counts.rejected.values())
    came = counts.read - before
    words = f"{came:,} clicks added to {before:,}" if before else f"{came:,} clicks"
    output.print(f"{out}: {words} in {seconds:.1f} s ({came / seconds:,.0f} clicks/s)")
    if rejected:
        output.print(f"{rejected:,} bad lines are in {out / 'dead-letter.jsonl'}")
    for bots in (file for file in manifest.files if file.path == "bots.jsonl"):
        limits = manifest.parameters["bot_clicks"]
        assert isinstance(limits, dict)
        words = " or ".join(f"{limit} clicks a {window}" for window, limit in limits.items())
        output.print(f"{bots.rows:,} users with more than {words} are in {out / bots.path}")
