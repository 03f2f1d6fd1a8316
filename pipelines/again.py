"""How the logs of a dataset were read, so that they can be read so again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.logs.presets import Preset
from recsys.logs.sources import Layout
from recsys.manifest import Manifest


def recorded(dataset: Path) -> tuple[list[str], Preset]:
    """The files that a dataset was built from, and how they were read.

    Raises:
        DatasetError: there is no dataset.
        InputError: it does not say so, or was itself built with dead letters.
    """
    parameters: dict[str, Any] = Manifest.load(dataset / "manifest.json").parameters
    if "layout" not in parameters:
        raise InputError(f"{dataset}: does not say how its logs were read: build it again from these")
    if letters := parameters["from_dead_letter"]:
        raise InputError(f"{dataset}: was built with the dead letters in {letters}: go on from that dataset instead")
    layout = parameters["layout"]
    known = Layout(tuple(layout["header"]), layout["delimiter"], layout["events"])
    return parameters["inputs"], Preset(
        parameters["mapping"], known, parameters["time_unit"], parameters["time_format"]
    )
