"""What a session dataset says of itself: settings, time split, counts in and out, and the hash of each file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from recsys.errors import DatasetError, MissingInputError
from recsys.files import sha256
from recsys.reasons import in_words
from recsys.settings import SessionSettings

SCHEMA_VERSION: Literal[1] = 1


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(_Model):
    """Where time cuts the log, in epoch milliseconds; ``None`` where that part was not asked for."""

    validation_from: int | None = None
    test_from: int | None = None


class Counts(_Model):
    """What became of every line read.

    ``rejected`` lines are in the dead letter; ``filtered`` events fell to the session settings, ``cut`` events to the
    time split. Each is by reason. ``forgotten`` ones were kept or rejected, and taken out since.
    """

    read: int
    kept: int
    duplicates: int = 0
    repeats: int = 0
    rejected: dict[str, int] = {}
    filtered: dict[str, int] = {}
    cut: dict[str, int] = {}
    forgotten: int = 0

    def fates(self) -> dict[str, int]:
        """Every count by name, for people; all after the first, ``read``, add up to it."""
        found = {"read": self.read, "kept": self.kept, "exact duplicates": self.duplicates}
        found["direct repeats"] = self.repeats
        parts = {"rejected, ": self.rejected, "filtered: ": self.filtered, "cut by the split: ": self.cut}
        for heading, part in parts.items():
            found |= {f"{heading}{in_words(reason)}": n for reason, n in part.items()}
        return found | ({"forgotten": self.forgotten} if self.forgotten else {})

    def __str__(self) -> str:
        """In one line, without what did not happen."""
        return ", ".join(f"{n:,} {name}" for name, n in self.fates().items() if n or name == "kept")

    def check(self) -> None:
        """Refuse counts that do not add up.

        Raises:
            DatasetError: events were lost or invented on the way.
        """
        parts = [self.rejected, self.filtered, self.cut]
        total = self.kept + self.duplicates + self.repeats + self.forgotten + sum(sum(part.values()) for part in parts)
        if total != self.read:
            raise DatasetError(f"counts do not add up: {self.read} events read, {total} accounted for: {self}")


class Size(_Model):
    """How much one split holds."""

    events: int
    sessions: int
    items: int


class DatasetFile(_Model):
    """One file of the dataset; ``path`` is relative to it."""

    path: str
    rows: int
    sha256: str

    def verify(self, directory: Path) -> None:
        """Compare the file in the dataset ``directory`` with its hash.

        Raises:
            DatasetError: the file is missing or altered.
        """
        path = directory / self.path
        if not path.is_file():
            raise DatasetError(f"{path}: is missing, though the manifest lists it")
        if sha256(path) != self.sha256:
            raise DatasetError(f"{path}: has been altered: its hash is not the one in the manifest")


class Manifest(_Model):
    """What a dataset is, where it came from in numbers, and what its files must hash to.

    ``content_hash`` names the vocabulary, settings, split and sessions, however they are spread over files.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    session_settings: SessionSettings
    event_types: list[str]
    parameters: dict[str, JsonValue]
    split: Split
    counts: Counts
    sizes: dict[str, Size]
    files: list[DatasetFile]
    content_hash: str

    @property
    def inputs(self) -> list[str]:
        """The files of clicks that it was built from, as far as it says."""
        logs: Any = self.parameters.get("logs", [])
        return [str(name) for log in logs for name in log["inputs"]]

    def check_unchanged(self, directory: Path) -> None:
        """Refuse to take the place of a dataset that is no more what this manifest said.

        Raises:
            DatasetError: another run has changed it.
        """
        if Manifest.load(directory / "manifest.json") != self:
            raise DatasetError(f"{directory}: was changed by another run in the meantime: begin again")

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            MissingInputError: there is none at ``path``.
            DatasetError: it is not one, or cannot be read.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            there = path.parent.exists()
            words = f"not a session dataset: it has no {path.name}" if there else "no such dataset directory"
            raise MissingInputError(f"{path.parent}: {words}") from None
        except OSError as error:
            raise DatasetError(f"{path}: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise DatasetError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
