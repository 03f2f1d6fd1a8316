"""``recsys generate``: a click log of our own."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click


def _options(command: Any) -> Any:
    """One flag for each parameter of the generator."""
    from recsys.generator.process import Parameters

    for name, field in reversed(Parameters.model_fields.items()):
        if name == "version":
            continue
        kind = click.DateTime(["%Y-%m-%d"]) if name == "start" else field.annotation
        command = click.option(
            f"--{name.replace('_', '-')}", name, type=kind, help=f"{field.description} [default: {field.default}]"
        )(command)
    return command


@click.command()
@_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File to write: .csv, .csv.gz, .jsonl, .jsonl.gz or .parquet.",
)
def generate(out: Path, **values: Any) -> None:
    """Generate a click log from a known process.

    Beside the log it writes a description of the process, from which `recsys evaluate --process` computes the best
    possible Recall@20.

    \b
    recsys generate --events 200000 --users 5000 --items 3000 --seed 1 --out clicks.csv
    """
    from pydantic import ValidationError

    from recsys.console import console, progress
    from recsys.errors import SettingsError
    from recsys.generator.files import write
    from recsys.generator.process import Parameters

    given = {name: value for name, value in values.items() if value is not None}
    if isinstance(start := given.get("start"), datetime):
        given["start"] = start.date()
    try:
        parameters = Parameters(**given)
    except ValidationError as error:
        problem = error.errors()[0]
        flags = "".join(f"--{str(name).replace('_', '-')}: " for name in problem["loc"])
        raise SettingsError(f"{flags}{problem['msg'].removeprefix('Value error, ')}") from None
    with progress() as display:
        task = display.add_task("generating clicks", total=parameters.events, note="")
        sidecar = write(parameters, out, lambda rows: display.advance(task, rows))
    console.print(f"{parameters.events:,} rows in {out}, the process in {sidecar}")
