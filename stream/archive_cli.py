"""The command ``archive``."""

from __future__ import annotations

from pathlib import Path

import click

from recsys.cli.options import with_settings
from recsys.settings import Settings


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory of the archive.")
@click.option("--until-now", is_flag=True, help="End where the topic ends now, instead of waiting for more.")
@with_settings("archive", "kafka", "log")
def archive(settings: Settings, out: Path, until_now: bool) -> None:
    """Keep the click topic as Parquet files, a directory a day.

    \b
    Example:
      recsys archive --out archive
      recsys archive --out archive --until-now && recsys sessions archive --out dataset

    Days are those of UTC, by the times of the clicks. Each click comes once, however often the command is stopped,
    killed and started again: the archive itself says where in the topic to go on. Records that are no clicks go to
    _dead-letter/ in it, with the reason. SIGTERM or Ctrl-C writes what has been read and ends with code 0. When the
    broker stays away for longer than worker.retry_seconds, the command ends with code 69 and nothing is lost.

    With the setting privacy.key user ids are hashed, and context and unknown fields left out. Prints one JSON object at
    its end: what became of the records.
    """
    import signal
    import threading

    from recsys.archive import Archive
    from recsys.service_log import start_logging
    from stream.archiver import Archiver

    start_logging(settings.log)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Archive.open(out, create=True) as held:
        archiver = Archiver(settings, held)
        archiver.run(stop.is_set, until_now=until_now)
    click.echo(archiver.counts.model_dump_json())
