"""The command ``demo``."""

from __future__ import annotations

from pathlib import Path

import click

from recsys.cli.logs import LogFlags, with_log_flags
from recsys.cli.options import InputPath


@click.command()
@click.option("--clicks", type=InputPath(), help="Your own click log [default: generate a day of clicks].")
@with_log_flags
@click.option(
    "--events", type=click.IntRange(min=5_000), default=200_000, show_default=True, help="Clicks to generate."
)
@click.option("--directory", type=click.Path(path_type=Path), default=Path("demo-run"), show_default=True)
@click.option("--keep", is_flag=True, help="Leave the services up until Ctrl-C.")
def demo(clicks: str | None, log: LogFlags, events: int, directory: Path, keep: bool) -> None:
    """Run the whole system here, from clicks to live lists.

    \b
    Example:
      recsys demo
      recsys demo --clicks clicks.csv.gz --column user=visitor_id --column item=product_id
      recsys demo --clicks yoochoose-clicks.dat --preset yoochoose

    Generates a day of clicks (or takes yours), builds sessions, trains, evaluates and publishes a model, starts an
    embedded broker and store, the worker and the API, replays held-out clicks, and says how good and how fresh the
    recommendations are. Everything it writes is in --directory, which it empties first; all that it starts is stopped.
    """
    import signal
    import sys

    from recsys.demo.tour import Plan, Tour

    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal too must stop what was started
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    Tour(Plan(directory, clicks, log.as_arguments(), events, keep=keep)).run()
