"""A model as files, and the directory of published versions that serving reads.

A *model directory* is what training writes: ``weights.safetensors``, ``vocabulary.json`` and ``model.json``. Publishing
copies it into a *bundle*: the same files, the evaluation results if there are any, and ``manifest.json`` with the hash
of each file. A bundle is named by time and content hash and never changes. The file ``current`` beside the bundles
holds the name of the version to serve; it is replaced in one step.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recsys.errors import BundleError, InputError, MissingInputError
from recsys.files import content_hash, sha256, staged_directory, write_atomically
from recsys.settings import ModelSettings, SessionSettings
from recsys.vocabulary import Vocabulary

WEIGHTS, VOCABULARY, DESCRIPTION, EVALUATION = "weights.safetensors", "vocabulary.json", "model.json", "evaluation.json"
MANIFEST, CURRENT, CANARY = "manifest.json", "current", "canary.json"
SCHEMA = 2
_VERSION = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{16}")

Weights = Mapping[str, NDArray[np.float32]]
Learnt = Literal["training", "development"]


class Description(BaseModel):
    """``model.json``: what the weights mean.

    ``learnt`` names the sessions of ``dataset`` that the weights come from: ``training`` alone, or ``development``,
    which holds the validation sessions too. ``learnt_until`` is the time of the newest event learnt, epoch ms; older
    models do not say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    model: ModelSettings
    sessions: SessionSettings
    event_types: tuple[str, ...]
    dataset: str
    learnt: Learnt
    learnt_until: int | None = None


class Manifest(BaseModel):
    """``manifest.json``: what a bundle holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    version: str
    created: datetime
    files: dict[str, str]


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


@dataclass(frozen=True)
class Model:
    """Everything serving must know: weights, the row of each item, and how sessions are cut."""

    weights: Weights
    vocabulary: Vocabulary
    description: Description


@dataclass(frozen=True)
class Bundle:
    """A published model.

    ``digest`` is a 64-bit number from the content hash: user states and lists carry it to say which model made them.
    """

    version: str
    path: Path
    manifest: Manifest
    model: Model

    @property
    def digest(self) -> int:
        """The content hash part of the version's name as a number."""
        return digest_of(self.version)


def digest_of(version: str) -> int:
    """The content hash part of a version's name as a 64-bit number."""
    return int(version.rpartition("-")[2], 16)


def save_model(directory: Path, model: Model) -> None:
    """Write a model's three files into an existing directory."""
    save_file({name: np.ascontiguousarray(value) for name, value in model.weights.items()}, directory / WEIGHTS)
    (directory / WEIGHTS).chmod(0o644)  # others may serve what one user trained
    model.vocabulary.save(directory / VOCABULARY)
    (directory / DESCRIPTION).write_text(model.description.model_dump_json(indent=1))


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
    return _load_files(path)


def open_bundle(path: Path) -> Bundle:
    """Read one published version and verify the hash of each of its files.

    Raises:
        MissingInputError: no such bundle.
        BundleError: names the file that is missing or altered.
    """
    manifest = _read_manifest(path)
    for name, expected in manifest.files.items():
        if not (path / name).is_file():
            raise BundleError(f"{path / name}: missing")
        if sha256(path / name) != expected:
            raise BundleError(f"{path / name}: altered, its SHA-256 is not the one in {MANIFEST}")
    if not manifest.version.endswith(content_hash(manifest.files)[:16]):
        raise BundleError(f"{path / MANIFEST}: altered, version {manifest.version} is not that of its files")
    return Bundle(manifest.version, path, manifest, _load_files(path))


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
        try:
            return (self.directory / CURRENT).read_text().strip()
        except FileNotFoundError:
            raise MissingInputError(f"{self.directory}: no bundle is published here (see recsys publish)") from None

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
                if sha256(path / VOCABULARY) != _read_manifest(path).files.get(VOCABULARY):
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
            BundleError: the model directory is incomplete or does not fit together.
            MissingInputError: a trial needs a current version beside it, and there is none.
        """
        if share is not None:
            self.current()
        load_model(model)
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
        """Make an older version current: the one published before the current one, or the one named.

        A trial ends. Where there is one and no version is named, that is all, and the current version stays.

        Raises:
            MissingInputError: there is no such version.
            BundleError: that version is altered.
        """
        if version is None and self.canary() is not None:
            self.end_trial()
            return self.current()
        if version is None:
            older = [name for name in self.versions() if name < self.current()]
            if not older:
                raise MissingInputError(f"{self.directory}: no version is older than {self.current()}")
            version = older[-1]
        self.open(version)
        self.point_to(version)
        self.end_trial()
        return version

    def point_to(self, version: str) -> None:
        """Move the pointer, in one step."""
        write_atomically(self.directory / CURRENT, f"{version}\n".encode())


def _read_manifest(path: Path) -> Manifest:
    if not (path / MANIFEST).is_file():
        raise MissingInputError(f"{path}: no bundle here ({MANIFEST} is missing)")
    try:
        manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except ValidationError as error:
        raise BundleError(f"{path / MANIFEST}: {error.errors()[0]['msg']}") from None
    if manifest.schema_version != SCHEMA:
        raise BundleError(f"{path / MANIFEST}: schema {manifest.schema_version}, this program reads {SCHEMA}")
    return manifest


def _load_files(path: Path) -> Model:
    if not path.is_dir():
        raise MissingInputError(f"{path}: no such model directory")
    for name in (WEIGHTS, VOCABULARY, DESCRIPTION):
        if not (path / name).is_file():
            raise BundleError(f"{path / name}: missing")
    try:
        description = Description.model_validate_json((path / DESCRIPTION).read_bytes())
        weights: Weights = load_file(path / WEIGHTS)
        vocabulary = Vocabulary.load(path / VOCABULARY)
    except ValidationError as error:
        problem = error.errors()[0]
        raise BundleError(f"{path / DESCRIPTION}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    except SafetensorError as error:
        raise BundleError(f"{path / WEIGHTS}: {error}") from None
    except InputError as error:
        raise BundleError(str(error)) from None
    if description.schema_version != SCHEMA:
        raise BundleError(f"{path / DESCRIPTION}: schema {description.schema_version}, this program reads {SCHEMA}")
    _check_shapes(path, weights, vocabulary, description)
    return Model(weights, vocabulary, description)


def _check_shapes(path: Path, weights: Weights, vocabulary: Vocabulary, description: Description) -> None:
    units, items = description.model.units, len(vocabulary)
    expected: dict[str, tuple[int, ...]] = {"bias": (items,), "rise": (items,), "trend": (1,)}
    expected["revisit"] = (1 + description.model.memory,)
    for layer in range(description.model.layers):
        expected[f"gru.{layer}.kernel"] = expected[f"gru.{layer}.recurrent"] = (units, 3 * units)
        expected[f"gru.{layer}.bias"] = (3 * units,)
    if description.model.embedding == "one-hot":
        expected["gru.0.kernel"] = (items, 3 * units)
    else:
        expected["embedding"] = (items, units)
    if description.model.embedding != "tied":
        expected["output"] = (items, units)
    found = {name: value.shape for name, value in weights.items()}
    if found != expected:
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        shapes = ", ".join(f"{name} is {found.get(name)}, not {expected.get(name)}" for name in wrong)
        raise BundleError(f"{path / WEIGHTS}: {shapes} ({items} items, {description.model.layers} layers of {units})")
    if any(not np.isfinite(value).all() for value in weights.values()):
        raise BundleError(f"{path / WEIGHTS}: holds numbers that are not finite")
