"""How the logs of a dataset were read, so that they, or logs like them, can be read so again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from recsys.columns import Clock
from recsys.errors import InputError
from recsys.logs.presets import Preset
from recsys.logs.sources import Layout, Source
from recsys.manifest import Manifest
from recsys.times import TimeUnit


@dataclass(frozen=True)
class Log:
    """Files that were read in one way; ``columns`` are those of the first of them for the fields that it has."""

    inputs: list[str]
    columns: dict[str, str]
    mapping: dict[str, str]
    layout: Layout
    time_unit: TimeUnit
    time_format: str | None

    @classmethod
    def of(cls, sources: list[Source], mapping: dict[str, str], layout: Layout, clock: Clock) -> Log:
        """What a run reads."""
        names = [source.name for source in sources]
        return cls(names, dict(sources[0].columns), dict(mapping), layout, clock.unit, clock.pattern)

    @property
    def reading(self) -> Preset:
        """How the files were read."""
        return Preset(self.mapping, self.layout, self.time_unit, self.time_format)

    def to_json(self) -> JsonValue:
        """For the manifest; :func:`logs_of` reads it."""
        return {**vars(self), "layout": {**vars(self.layout), "header": list(self.layout.header)}}


def logs_of(dataset: Path, manifest: Manifest) -> list[Log]:
    """The logs that a dataset was built from, in the order in which they were added.

    Raises:
        InputError: it does not say so.
    """
    logs: Any = manifest.parameters.get("logs")
    if logs is None:
        raise InputError(f"{dataset}: does not say how its logs were read: build it again from these")
    return [
        Log(**{**log, "layout": Layout(**{**log["layout"], "header": tuple(log["layout"]["header"])})}) for log in logs
    ]


def recorded(dataset: Path) -> tuple[list[str], Preset]:
    """The files that a dataset was built from, and how they were read.

    Raises:
        MissingInputError: there is no dataset.
        InputError: it does not say so, was itself built with dead letters, or from logs that were read in several ways.
    """
    manifest = Manifest.load(dataset / "manifest.json")
    logs = logs_of(dataset, manifest)
    if letters := manifest.parameters["from_dead_letter"]:
        raise InputError(f"{dataset}: was built with the dead letters in {letters}: go on from that dataset instead")
    if any(log.reading != logs[0].reading for log in logs):
        raise InputError(f"{dataset}: its logs were not all read in one way: build datasets of those that were")
    return [name for log in logs for name in log.inputs], logs[0].reading
