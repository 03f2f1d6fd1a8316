"""kill -9 in the middle of a training run, then --resume: the same model, to the bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
from safetensors.numpy import load_file

from recsys.bundle import WEIGHTS
from recsys.dataset import write_dataset
from recsys.manifest import Split
from recsys.published import load_model
from recsys.vocabulary import Vocabulary

from .logs import markov_chain, markov_log

OPTIONS = "--no-refit --units 16 --epochs 3 --halvings 2 --batch-size 8 --clicks-per-step 4 --samples 16"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "dataset"
    log = markov_log(markov_chain(50, 10, 1), 2500, 6, 1)
    boundary = int(log.times[log.starts[2000]])
    first = log.times < boundary
    users = [f"u{number:04}" for number in range(len(log))]
    counts = [int((log.items == item).sum()) for item in range(50)]
    parts = {"train": first, "validation": ~first}
    sessions = {name: log.keep_events(keep) for name, keep in parts.items()}
    sessions = {name: part.keep_sessions(part.lengths > 0) for name, part in sessions.items()}
    write_dataset(
        path,
        Vocabulary([f"i{item:02}" for item in range(50)], np.array(counts)),
        {"train": (sessions["train"], users[:2000]), "validation": (sessions["validation"], users[2000:])},
        Split(validation_from=boundary, test_from=None),
    )
    return path


def train(dataset: Path, out: Path, *options: str) -> "subprocess.Popen[bytes]":
    code = "from recsys.cli import main; main()"
    command = [sys.executable, "-c", code, "train", str(dataset), "--out", str(out), *OPTIONS.split()]
    command += ["--checkpoint-seconds", "0.01", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: "subprocess.Popen[bytes]") -> str:
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr.decode()
    return stderr.decode()


ADAMW = "--optimizer adamw --learning-rate 0.003 --schedule cosine --warmup 0.2 --clip-norm 0.5"


@pytest.mark.parametrize(("options", "epochs"), [((), 5), (ADAMW.split(), 3)], ids=["default", "adamw on a schedule"])
def test_killed_and_resumed_is_as_unbroken(dataset: Path, tmp_path: Path, options: list[str], epochs: int) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    said = finish(train(dataset, unbroken, *options))
    history = orjson.loads((unbroken / "history.json").read_bytes())
    assert [epoch["number"] for epoch in history] == list(range(1, epochs + 1))
    assert len(said.splitlines()) == len(history), f"a line an epoch and no other noise: {said}"

    process = train(dataset, broken, *options)
    deadline = time.monotonic() + 60
    while not (broken / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (broken / "model").exists(), "killed too late"

    refused = train(dataset, broken, *options)
    _, stderr = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert b"--resume or --overwrite" in stderr

    finish(train(dataset, broken, "--resume", *options))
    one, other = (load_file(run / "model" / WEIGHTS) for run in (unbroken, broken))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    descriptions = [load_model(run / "model").description for run in (unbroken, broken)]
    assert descriptions[0] == descriptions[1]
    assert descriptions[0].learnt == "training", "with --no-refit"
    assert {path.name for path in broken.iterdir()} == {"model", "history.json", "logs"}
