"""The commands ``publish`` and ``rollback``."""

from __future__ import annotations

from pathlib import Path

import click

from recsys.cli.options import with_settings
from recsys.console import console, output
from recsys.settings import Settings


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--evaluation", type=click.Path(path_type=Path, exists=True), help="evaluation.json to publish with it.")
@with_settings("bundles")
def publish(model: Path, evaluation: Path | None, settings: Settings) -> None:
    """Publish a trained model: copy it into the directory of bundles, verify it, and make it the current one.

    \b
    Example:
      recsys publish run/model --evaluation report/evaluation.json --bundles bundles

    Workers and API processes that watch the directory take the new version over without a pause. Prints its name.
    """
    from recsys.bundle import Bundles

    output.print(Bundles(settings.bundles).publish(model, evaluation))
    console.print(f"published in {settings.bundles}, and current from now on", soft_wrap=True)


@click.command()
@click.option("--to", "version", help="The version to go back to [default: the one published before the current one].")
@with_settings("bundles")
def rollback(version: str | None, settings: Settings) -> None:
    """Make an older published model the current one again.

    \b
    Example:
      recsys rollback --bundles bundles

    Prints the version that serves from now on.
    """
    from recsys.bundle import Bundles

    output.print(Bundles(settings.bundles).rollback(version))
    console.print(f"current in {settings.bundles} from now on", soft_wrap=True)
