"""A model as files.

A *model directory* is what training writes: ``weights.safetensors``, ``vocabulary.json`` and ``model.json``. Publishing
copies it into a *bundle*: the same files, the evaluation results if there are any, and ``manifest.json`` with the hash
of each file. A bundle is named by time and content hash and never changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recsys.errors import BundleError, InputError, MissingInputError
from recsys.files import content_hash, sha256
from recsys.settings import ModelSettings, SessionSettings
from recsys.vocabulary import Vocabulary

WEIGHTS, VOCABULARY, DESCRIPTION, EVALUATION = "weights.safetensors", "vocabulary.json", "model.json", "evaluation.json"
MANIFEST = "manifest.json"
SCHEMA = 2

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


@dataclass(frozen=True)
class Model:
    """Everything serving must know: weights, the row of each item, and how sessions are cut."""

    weights: Weights
    vocabulary: Vocabulary
    description: Description

    @property
    def fingerprint(self) -> str:
        """A hash of the weights and the item ids: what an evaluation is true of."""
        digest = hashlib.sha256("\n".join(self.vocabulary.ids).encode())
        for name in sorted(self.weights):
            digest.update(name.encode() + np.ascontiguousarray(self.weights[name]).tobytes())
        return digest.hexdigest()


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


def open_bundle(path: Path) -> Bundle:
    """Read one published version and verify the hash of each of its files.

    Raises:
        MissingInputError: no such bundle.
        BundleError: names the file that is missing or altered.
    """
    manifest = read_manifest(path)
    for name, expected in manifest.files.items():
        if not (path / name).is_file():
            raise BundleError(f"{path / name}: missing")
        if sha256(path / name) != expected:
            raise BundleError(f"{path / name}: altered, its SHA-256 is not the one in {MANIFEST}")
    if not manifest.version.endswith(content_hash(manifest.files)[:16]):
        raise BundleError(f"{path / MANIFEST}: altered, version {manifest.version} is not that of its files")
    return Bundle(manifest.version, path, manifest, load_directory(path))


def read_manifest(path: Path) -> Manifest:
    """What a bundle says that it holds, not verified.

    Raises:
        MissingInputError: no bundle is there.
        BundleError: its manifest cannot be read.
    """
    if not (path / MANIFEST).is_file():
        raise MissingInputError(f"{path}: no bundle here ({MANIFEST} is missing)")
    try:
        manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except ValidationError as error:
        raise BundleError(f"{path / MANIFEST}: {error.errors()[0]['msg']}") from None
    if manifest.schema_version != SCHEMA:
        raise BundleError(f"{path / MANIFEST}: schema {manifest.schema_version}, this program reads {SCHEMA}")
    return manifest


def load_directory(path: Path) -> Model:
    """Read the three files of a model.

    Raises:
        MissingInputError: no such directory.
        BundleError: names the file that is missing, unreadable or does not fit the others.
    """
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
    if "followers" in weights:  # models that older versions trained have none, nor those to which they say nothing
        expected["followers"] = expected["surplus"] = (items, description.model.followers)
        expected["following"] = (1,)
    found = {name: value.shape for name, value in weights.items()}
    if found != expected:
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        shapes = ", ".join(f"{name} is {found.get(name)}, not {expected.get(name)}" for name in wrong)
        raise BundleError(f"{path / WEIGHTS}: {shapes} ({items} items, {description.model.layers} layers of {units})")
    if any(not np.isfinite(value).all() for value in weights.values()):
        raise BundleError(f"{path / WEIGHTS}: holds numbers that are not finite")
    rows = weights.get("followers", np.zeros(0, np.float32))
    if ((rows < 0) | (rows > items) | (rows != np.rint(rows))).any():
        raise BundleError(f"{path / WEIGHTS}: followers holds numbers that are no row of {items} items")
    ordered = np.sort(rows, axis=-1)
    if ((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] > 0)).any():
        raise BundleError(f"{path / WEIGHTS}: followers holds an item twice in one row")
