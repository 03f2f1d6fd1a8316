"""A small dataset to tune on, and a search over it that nothing disturbed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from recsys.cli.tune import tune
from recsys.dataset import Dataset, write_dataset
from recsys.manifest import Split
from recsys.vocabulary import Vocabulary
from tests.model.logs import markov_chain, markov_log

ITEMS, SESSIONS = 40, 400
TRAINING = {"epochs": 2, "halvings": 1, "batch-size": 8, "clicks-per-step": 4, "samples": 8}
OPTIONS = ["--units", "8", *(word for name, value in TRAINING.items() for word in (f"--{name}", str(value)))]
SPACE = """
[training]
learning_rate = { low = 0.005, high = 0.5, log = true }
momentum = { low = 0.0, high = 0.5 }
"""


def make_dataset(path: Path, seed: int = 1, validation: bool = True) -> Dataset:
    """Sessions of a first-order process in three parts, one after the other."""
    log = markov_log(markov_chain(ITEMS, 8, seed), SESSIONS, 6, seed)
    begins = [int(log.times[log.starts[at]]) for at in (SESSIONS // 2, 3 * SESSIONS // 4)]
    part = np.searchsorted(begins, log.times[log.starts[:-1]], side="right")
    users = [f"u{number:03}" for number in range(SESSIONS)]
    sessions = {
        name: (log.keep_sessions(part == place), [users[number] for number in np.flatnonzero(part == place)])
        for place, name in enumerate(("train", "validation", "test"))
        if validation or name != "validation"
    }
    ids = [f"i{item:02}" for item in range(ITEMS)]
    vocabulary = Vocabulary(ids, np.bincount(log.items, minlength=ITEMS))
    return write_dataset(path, vocabulary, sessions, Split(validation_from=begins[0], test_from=begins[1]))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "dataset").path


@pytest.fixture(scope="session")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.toml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="session")
def tuned(dataset: Path, space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a search of four trials."""
    out = tmp_path_factory.mktemp("tuned") / "out"
    arguments = [str(dataset), "--out", str(out), "--space", str(space), "--trials", "4", *OPTIONS]
    done = CliRunner().invoke(tune, arguments, catch_exceptions=False)
    assert "settings in force" in done.output
    return out
