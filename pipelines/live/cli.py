"""``recsys stream-sessions``: the click topic in, closed sessions out."""

from __future__ import annotations

from pathlib import Path

import click

from recsys.cli.options import with_settings
from recsys.settings import Settings


@click.command()
@click.argument("beam_flags", nargs=-1, metavar="[-- BEAM_FLAGS...]")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory of the closed sessions.")
@click.option("--until-now", is_flag=True, help="End where the topic ends now, and close all sessions.")
@click.option(
    "--resume", is_flag=True, help="Go on in that directory, from the runner's savepoint; by the same settings."
)
@with_settings("streaming", "kafka")
def stream_sessions(settings: Settings, beam_flags: tuple[str, ...], out: Path, until_now: bool, resume: bool) -> None:
    """Close sessions while clicks come in, with Beam.

    \b
    recsys stream-sessions --out closed --until-now
    recsys stream-sessions --out /shared/closed -- --runner=FlinkRunner --flink_master=host:8081
    recsys sessions closed --column session=session_id --out dataset

    A session is closed when the watermark (the time of the newest clicks) is sessions.gap_minutes and the allowed
    lateness past its last click. Whatever the order in which clicks come until then, the sessions are those of `recsys
    sessions`, by the same rule; what comes later is a dead letter. Each session is written once, though the runner
    repeats its work, as clicks in Parquet, into a directory for the day (UTC) on which it ended. Dead letters lie there
    too, in files whose names begin with _, and what became of all records in _counts/.

    Without --until-now the job runs until it is cancelled on its cluster (Ctrl-C ends this command alone), and needs a
    runner for streams, such as Flink, whose workers all see the --out directory. On Flink it outlives a worker that
    dies, if it has checkpoints: --checkpointing_interval=60000 (milliseconds).
    """
    import logging

    if not until_now and not any(flag.startswith("--runner") for flag in beam_flags):
        raise click.UsageError("a job without end needs a cluster: name its --runner after --, or pass --until-now")
    logging.getLogger().setLevel(logging.CRITICAL)  # Beam warns of absent cloud packages, and logs what it raises

    from pipelines.live.run import StreamRequest
    from pipelines.live.run import stream_sessions as run
    from recsys.console import console

    with console.status(f"closing the sessions of {settings.kafka.topic}"):
        counts = run(StreamRequest(out, settings, until_now, resume, beam_flags))
    _show(counts, out)


def _show(counts: dict[str, int], out: Path) -> None:
    """What became of every record."""
    from rich.table import Table

    from recsys.console import output

    fates = Table("records", "count", title="What became of every record", title_justify="left")
    fates.columns[1].justify = "right"
    words = {"records": "read", "clicks": "in closed sessions", "duplicates": "exact duplicates", "open": "still open"}
    for name, count in counts.items():
        if name != "sessions":
            fates.add_row(words.get(name, name), f"{count:,}")
    output.print(fates)
    output.print(f"{out}: {counts.get('sessions', 0):,} sessions")
