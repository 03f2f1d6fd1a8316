"""The directory of published models that serving reads.

Beside the bundles (:mod:`recsys.bundle`) the file ``current`` holds the name of the version to serve, above those that
a rollback goes to, newest first: they served before and were not rolled back. ``canary.json`` names the version on
trial, if there is one. Each is replaced in one step.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recsys.bundle import (
    DESCRIPTION,
    EVALUATION,
    MANIFEST,
    VOCABULARY,
    WEIGHTS,
    Bundle,
    Manifest,
    Model,
    digest_of,
    load_directory,
    open_bundle,
    read_manifest,
)
from recsys.errors import BundleError, MissingInputError
from recsys.files import content_hash, sha256, staged_directory, write_atomically
from recsys.vocabulary import Vocabulary

CURRENT, CANARY = "current", "canary.json"
_VERSION = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{16}")


class Canary(BaseModel):
    """``canary.json``: a version on trial beside the current one, and the share of users it serves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    share: float = Field(gt=0, lt=1)

    def serves(self, user_id: str) -> bool:
        """Whether the user is among the share: by a hash with the version, so for as long as the trial lasts.

        A larger share keeps the users of a smaller one.
        """
        digest = hashlib.blake2b(user_id.encode(), digest_size=8, key=self.version.encode()[:64]).digest()
        return int.from_bytes(digest, "little") < self.share * 2**64


class Bundles:
    """A directory of published bundles and the pointer to the current one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def versions(self) -> list[str]:
        """Published versions, oldest first."""
        found = (path.parent.name for path in self.directory.glob(f"*/{MANIFEST}"))
        return sorted(name for name in found if _VERSION.fullmatch(name))

    def current(self) -> str:
        """The version that serves.

        Raises:
            MissingInputError: nothing has been published.
        """
        line = self._line()
        if not line:
            raise MissingInputError(f"{self.directory}: no bundle is published here (see recsys publish)")
        return line[0]

    def open(self, version: str | None = None) -> Bundle:
        """Read and verify a version, by default the current one."""
        version = version or self.current()
        bundle = open_bundle(self.directory / version)
        if bundle.version != version:
            raise BundleError(f"{bundle.path}: holds version {bundle.version}: was it renamed?")
        return bundle

    def vocabulary_of(self, digest: int) -> Vocabulary | None:
        """The vocabulary by which states and lists with this digest were written, or None where it is gone.

        Raises:
            BundleError: it is there but altered.
        """
        for version in self.versions():
            if digest_of(version) == digest:
                path = self.directory / version
                if sha256(path / VOCABULARY) != read_manifest(path).files.get(VOCABULARY):
                    raise BundleError(f"{path / VOCABULARY}: altered, its SHA-256 is not the one in {MANIFEST}")
                return Vocabulary.load(path / VOCABULARY)
        return None

    def canary(self) -> Canary | None:
        """The version on trial, if there is one.

        Raises:
            BundleError: the file that says so is damaged.
        """
        path = self.directory / CANARY
        try:
            return Canary.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise BundleError(f"{path}: {error.errors()[0]['msg']}") from None

    def publish(self, model: Path, evaluation: Path | None = None, share: float | None = None) -> str:
        """Copy a model directory into a new bundle, verify it, and make it the current one.

        With ``share``, the current one stays and the new one goes on trial with that share of the users.

        Returns:
            The new version's name.

        Raises:
            BundleError: the model directory is incomplete or does not fit together, or the evaluation is of another.
            MissingInputError: a trial needs a current version beside it, and there is none.
        """
        if share is not None:
            self.current()
        loaded = load_model(model)
        if evaluation is not None:
            _check_evaluation(evaluation, loaded)
        sources = {name: model / name for name in (WEIGHTS, VOCABULARY, DESCRIPTION)}
        if evaluation is not None:
            sources[EVALUATION] = evaluation
        hashes = {name: sha256(path) for name, path in sources.items()}
        created = datetime.now(UTC)
        version = f"{created:%Y%m%dT%H%M%S%fZ}-{content_hash(hashes)[:16]}"
        with staged_directory(self.directory / version) as staging:
            for name, path in sources.items():
                shutil.copyfile(path, staging / name)
            manifest = Manifest(version=version, created=created, files=hashes)
            (staging / MANIFEST).write_text(manifest.model_dump_json(indent=1))
            open_bundle(staging)
        if share is None:
            self.point_to(version)
        else:
            self.put_on_trial(version, share)
        return version

    def put_on_trial(self, version: str, share: float) -> None:
        """Let a version serve a share of the users; of a version on trial already, change the share."""
        write_atomically(self.directory / CANARY, Canary(version=version, share=share).model_dump_json().encode())

    def promote(self) -> str:
        """Make the version on trial the current one, and end the trial.

        Raises:
            MissingInputError: no version is on trial.
            BundleError: that version is altered.
        """
        canary = self.canary()
        if canary is None:
            raise MissingInputError(f"{self.directory}: no version is on trial")
        self.open(canary.version)
        self.point_to(canary.version)
        self.end_trial()
        return canary.version

    def end_trial(self) -> None:
        """All users get the current version."""
        (self.directory / CANARY).unlink(missing_ok=True)

    def rollback(self, version: str | None = None) -> str:
        """Make an older version current: the one that served before the current one, or the one named.

        What was rolled back is not gone to again unless it is named. A trial ends. Where there is one and no version is
        named, that is all, and the current version stays.

        Raises:
            MissingInputError: there is no such version.
            BundleError: that version is altered.
        """
        if version is None and self.canary() is not None:
            self.end_trial()
            return self.current()
        current, before = self.current(), self._before()
        if version is None:
            if not before:
                raise MissingInputError(f"{self.directory}: nothing served before {current}; name a version by --to")
            version = before[0]
        self.open(version)
        line = [current, *before]
        if version in line:
            rest = line[line.index(version) + 1 :]
        else:  # the current one is left for this one, but better than nothing
            rest = [name for name in before if name < version] or [name for name in line if name < version]
        self._write([version, *rest])
        self.end_trial()
        return version

    def point_to(self, version: str) -> None:
        """Move the pointer, in one step; a rollback goes to the version that served until now."""
        line = [*self._line()[:1], *self._before()]
        self._write([version, *(name for name in line if name != version)])

    def _line(self) -> list[str]:
        try:
            return (self.directory / CURRENT).read_text().split() or [""]
        except FileNotFoundError:
            return []

    def _before(self) -> list[str]:
        """What a rollback goes to, newest first; where the file names one version alone, all that are older."""
        line, there = self._line(), self.versions()
        if len(line) == 1:
            return [name for name in reversed(there) if name < line[0]]
        return [name for name in line[1:] if name in there]

    def _write(self, line: list[str]) -> None:
        write_atomically(self.directory / CURRENT, "".join(f"{name}\n" for name in line).encode())


def _check_evaluation(path: Path, model: Model) -> None:
    """Figures of another model would set the bounds of this one's drift alarm. (Older files do not say of which.)"""
    try:
        figures = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise BundleError(f"{path}: is no evaluation: {error}") from None
    if not isinstance(figures, dict) or figures.get("fingerprint", model.fingerprint) != model.fingerprint:
        raise BundleError(f"{path}: is of another model; see recsys evaluate")


def load_model(path: Path) -> Model:
    """Read a model directory, a bundle (verified), or the current bundle of a directory of bundles.

    Raises:
        MissingInputError: nothing is there.
        BundleError: names the file that is missing, altered or does not fit the others.
    """
    if (path / CURRENT).exists():
        return Bundles(path).open().model
    if (path / MANIFEST).exists():
        return open_bundle(path).model
    return load_directory(path)
