"""A demo that is broken off leaves nothing running. (A file of its own: it runs beside the other tests of the demo.)"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.running_demo import DEMO, assert_refused, processes_of


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("training", signal.SIGINT, 130),
        ("services up", signal.SIGINT, 130),
        ("services up", signal.SIGTERM, 143),
    ],
)
def test_ctrl_c_and_sigterm_stop_everything(tmp_path: Path, moment: str, number: signal.Signals, code: int) -> None:
    directory = tmp_path / "demo"
    log = tmp_path / "output"
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [*DEMO, "--events", "8000", "--keep", "--directory", str(directory)],
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | {"RECSYS_TRAINING__EPOCHS": "1"},
        )
    awaited = "recsys train" if moment == "training" else "recsys replay"
    while awaited not in log.read_text():
        assert demo.poll() is None, log.read_text()[-2000:]
        time.sleep(0.1)
    time.sleep(1)
    if number == signal.SIGINT:
        os.killpg(demo.pid, number)  # as a terminal does: to the whole foreground group
    else:
        demo.send_signal(number)
    assert demo.wait(60) == code
    assert not processes_of(directory)
    assert "Traceback" not in log.read_text()
    if moment == "services up":
        assert_refused(directory)
