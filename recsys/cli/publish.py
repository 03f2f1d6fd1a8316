"""The commands ``publish``, ``promote`` and ``rollback``."""

from __future__ import annotations

from pathlib import Path

import click

from recsys.cli.options import FiniteRange, InputPath, with_settings
from recsys.console import console, output
from recsys.settings import Settings


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--evaluation", type=InputPath(path_type=Path), help="evaluation.json to publish with it.")
@click.option(
    "--canary",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Put it on trial with this share of the users; the current one stays.",
)
@with_settings("bundles")
def publish(model: Path, evaluation: Path | None, canary: float | None, settings: Settings) -> None:
    """Publish a trained model.

    \b
    Example:
      recsys publish run/model --evaluation report/evaluation.json --bundles bundles
      recsys publish run/model --canary 0.05

    It is copied into the directory of bundles, verified, and made the current one.

    Workers and API processes that watch the directory take the new version over without a pause. Prints its name.
    A user is on trial or not for as long as the trial lasts; the worker's metrics are by version. End it by
    recsys promote or recsys rollback.
    """
    from recsys.published import Bundles

    output.print(Bundles(settings.bundles).publish(model, evaluation, canary))
    place = "current from now on" if canary is None else f"on trial with {canary:.1%} of the users"
    console.print(f"published in {settings.bundles}, and {place}", soft_wrap=True)


@click.command()
@with_settings("bundles")
def promote(settings: Settings) -> None:
    """Make the model on trial the current one, for all users.

    \b
    Example:
      recsys promote --bundles bundles

    Prints its version.
    """
    from recsys.published import Bundles

    output.print(Bundles(settings.bundles).promote())
    console.print(f"current in {settings.bundles} from now on, the trial has ended", soft_wrap=True)


@click.command()
@click.option("--to", "version", help="The version to go to [default: the one that served before the current one].")
@with_settings("bundles")
def rollback(version: str | None, settings: Settings) -> None:
    """End a trial, or make an older model the current one.

    \b
    Example:
      recsys rollback --bundles bundles

    Without --to it never goes to a version that was rolled back, or that was on trial alone. While a version is on
    trial (recsys publish --canary), that ends and the current version stays. Prints the version that serves from now
    on.
    """
    from recsys.published import Bundles

    output.print(Bundles(settings.bundles).rollback(version))
    console.print(f"current in {settings.bundles} from now on", soft_wrap=True)
