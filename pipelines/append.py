"""A log is added to a dataset: what the dataset says of the logs before, and what the run must keep to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.again import Log, logs_of
from pipelines.boundaries import Boundaries
from pipelines.tally import Tally
from recsys.dataset import KEPT
from recsys.errors import InputError, SettingsError
from recsys.files import put_back
from recsys.logs.sources import Source
from recsys.manifest import DatasetFile, Manifest
from recsys.settings import SessionSettings

_CLICKS = f"{KEPT}/"
_ADDED, _FILES = 0.5, 8  # clicks that may lie in files added later, a click of the first files; files of a shard
_CUT_BY = ("gap_minutes", "collapse_repeats")  # what the sessions of all logs must agree on


@dataclass(frozen=True)
class Earlier:
    """A dataset to which a log is added."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Earlier:
        """The dataset at ``path``, with the clicks that it keeps.

        Raises:
            MissingInputError: there is none.
            DatasetError: a file is missing or altered.
            InputError: it keeps no clicks.
        """
        put_back(path)
        manifest = Manifest.load(path / "manifest.json")
        needed = [entry for entry in manifest.files if entry.path.startswith((_CLICKS, "dead-letter"))]
        if len(needed) < 2 or "shards" not in manifest.parameters:
            raise InputError(
                f"{path}: keeps no clicks to which others could be added (it was built with --no-keep-clicks, or by an "
                "older version): build it again from all logs"
            )
        for entry in needed:
            entry.verify(path)
        return cls(path, manifest)

    @property
    def kept(self) -> list[DatasetFile]:
        """The files of the clicks that it keeps."""
        return [entry for entry in self.manifest.files if entry.path.startswith(_CLICKS)]

    @property
    def clicks(self) -> dict[int, list[Path]]:
        """The paths of these by shard, in the order in which they were written."""
        found: dict[int, dict[int, Path]] = {}
        for entry in self.kept:
            path = self.path / entry.path
            shard, _, number = path.stem.partition("-")
            found.setdefault(int(shard), {})[int(number or 0)] = path
        return {shard: [files[number] for number in sorted(files)] for shard, files in found.items()}

    @property
    def overgrown(self) -> bool:
        """Whether so much was added that all clicks are to be written as one file a shard again, or soon all reading
        would go for clicks that are void."""
        added = sum(entry.rows for entry in self.kept if "-" in Path(entry.path).stem)
        return added > _ADDED * (self.rows - added) or max(map(len, self.clicks.values())) > _FILES

    @property
    def dead_letters(self) -> Path:
        """The lines of its logs that could not be used."""
        return self.path / "dead-letter.jsonl"

    @property
    def from_dead_letter(self) -> str | None:
        """The dead letters of another dataset with which it was built, if it was."""
        path: str | None = self._parameters["from_dead_letter"]
        return path

    @property
    def shards(self) -> int:
        """How many parts its users are spread over."""
        return int(self._parameters["shards"])

    @property
    def rows(self) -> int:
        """How many clicks it keeps."""
        return sum(entry.rows for entry in self.kept)

    @property
    def logs(self) -> list[Log]:
        """The logs that it was built from."""
        return logs_of(self.path, self.manifest)

    @property
    def tally(self) -> Tally:
        """What is known of its logs, but for what their good clicks say themselves."""
        counts = self.manifest.counts
        rejected = {f"rejected/{reason}": n for reason, n in counts.rejected.items()}
        return Tally(Counter({"read": counts.read, **rejected}))

    def forgotten(self, read: Tally) -> int:
        """How many clicks of all that were ``read``, before and now, are no more: some users were forgotten."""
        return read.counts["read"] - sum(read.group("rejected").values()) - sum(read.group("hour").values())

    def settings(self, asked: SessionSettings) -> SessionSettings:
        """The dataset's session settings, but for those that are ``asked`` for by name.

        Raises:
            SettingsError: its sessions were cut by another rule.
        """
        before = self.manifest.session_settings
        changed = {name: getattr(asked, name) for name in asked.model_fields_set}
        for name in _CUT_BY:
            if name in changed and changed[name] != getattr(before, name):
                raise SettingsError(
                    f"sessions.{name}: is {changed[name]}, but {self.path} was built with {getattr(before, name)}: "
                    "give the same, or build it again from all logs"
                )
        return before.model_copy(update=changed)

    def boundaries(self, asked: Boundaries) -> Boundaries:
        """How time is split: as asked for now, or else as it was when the dataset was built."""
        before = Boundaries(**self._parameters["boundaries"])
        test = asked if asked.test_from is not None or asked.test_days is not None else before
        validation = asked if asked.validation_from is not None or asked.validation_days is not None else before
        return Boundaries(test.test_from, test.test_days, validation.validation_from, validation.validation_days)

    def check(self, sources: list[Source], key: str | None) -> None:
        """Refuse files that have sessions of their own where the dataset has none, or the other way round, and user ids
        that are hashed by another ``key`` than those of the dataset.

        Raises:
            InputError: names the file.
            SettingsError: names the keys.
        """
        if key != (before := self._parameters["key"]):
            now, then = ("in clear" if each is None else f"hashed by the key {each}" for each in (key, before))
            raise SettingsError(f"settings: privacy.key: user ids would be {now}, but those of {self.path} are {then}")
        own = "session_id" in self.logs[0].columns
        for source in sources:
            if ("session_id" in source.columns) != own:
                words = ("has no column for session_id", "has") if own else ("has sessions of its own", "has not")
                raise InputError(f"{source.name}: {words[0]}, but the logs of {self.path} {words[1]}")

    @property
    def _parameters(self) -> dict[str, Any]:
        return self.manifest.parameters
