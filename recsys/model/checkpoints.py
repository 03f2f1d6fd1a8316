"""A training run on disk, so that it goes on after a crash as if nothing had happened.

A checkpoint is one safetensors file: every variable that a step changes, and in its header how far the run is. It is
replaced in one step; a crash while writing leaves the one before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from recsys.errors import InputError, SettingsError
from recsys.files import staged_file
from recsys.sessions import Sessions
from recsys.settings import ModelSettings, TrainingSettings

FORMAT = 2  # what a checkpoint says of a run, and what the run would do next


def fingerprint(
    model: ModelSettings,
    training: TrainingSettings,
    items: int,
    start: Mapping[str, NDArray[np.float32]],
    *sessions: Sessions,
) -> str:
    """What a run depends on: settings, weights it starts from, and data. How often it is saved does not matter."""
    digest = hashlib.blake2b(model.model_dump_json().encode(), digest_size=16)
    digest.update(training.model_dump_json(exclude={"checkpoint_seconds"}).encode())
    digest.update(f"{items} {FORMAT}".encode())
    for name, weight in sorted(start.items()):
        digest.update(name.encode())
        digest.update(weight.tobytes())
    for part in sessions:
        digest.update(part.items.tobytes())
        digest.update(part.starts.tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, run: str, progress: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write the state of the run with this fingerprint; ``progress`` is anything JSON can hold."""
    header = {"run": run, "progress": orjson.dumps(progress).decode()}
    arrays = {name: np.asarray(value) for name, value in tensors.items()}  # a scalar variable gives no array
    with staged_file(path) as staging:
        save_file(arrays, staging, metadata=header)  # straight to disk: no second copy of large tables


def load_checkpoint(path: Path, run: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
    """Progress and tensors as saved, or None where there is no checkpoint.

    Raises:
        SettingsError: the checkpoint is of a run with other settings or data.
        InputError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata()
            if header["run"] != run:
                raise SettingsError(
                    f"{path}: the checkpoint is of a run with other settings or another dataset or start; pass "
                    "the same to resume, or --overwrite to begin anew"
                )
            return orjson.loads(header["progress"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, orjson.JSONDecodeError) as error:
        raise InputError(f"{path}: damaged checkpoint: {error}") from None
