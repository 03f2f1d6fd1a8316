"""The main job from end to end, as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from recsys.demo.figures import Reading
from tests.running_demo import DEMO, assert_refused, processes_of


def test_the_demo_runs_from_clicks_to_live_recommendations_and_stops_all_it_started(tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    done = subprocess.run(
        [*DEMO, "--events", "30000", "--directory", str(directory)],
        env=os.environ | {"RECSYS_TRAINING__EPOCHS": "4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for words in ("Sessions built:", "Epochs:", "popularity", "item-kNN", "VMIS-kNN", "best possible", "real pace"):
        assert words in done.stdout
    assert re.search(r"rush hour +│ +[0-9,]+ │ +\d+\.\d │", done.stdout)
    assert re.search(r"rush hour.*│ +\d+ ms │ +\d+ ms │", done.stdout)
    assert "answers from source user" in done.stdout
    figures = json.loads((directory / "report" / "evaluation.json").read_bytes())
    recall = {each["name"]: each["metrics"]["recall@20"] for each in figures["recommenders"]}
    assert recall["popularity"] < recall["GRU"] < recall["best possible"]
    assert not processes_of(directory)
    assert_refused(directory)


def test_a_directory_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    done = subprocess.run([*DEMO, "--directory", str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, "holds other things" in done.stderr) == (1, True)
    assert (tmp_path / "letter").read_text() == "dear"


def test_clicks_inside_the_directory_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / ".recsys-demo").touch()
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("user_id,item_id,timestamp\n")
    command = [*DEMO, "--clicks", str(clicks), "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "move it" in done.stderr) == (1, True)
    assert clicks.exists()


METRICS = """
# TYPE recsys_clicks_applied_total counter
recsys_clicks_applied_total 10.0
# TYPE recsys_clicks_skipped_total counter
recsys_clicks_skipped_total{reason="duplicate"} 2.0
recsys_clicks_skipped_total{reason="repeat"} 3.0
# TYPE recsys_freshness_seconds histogram
recsys_freshness_seconds_bucket{le="0.01"} 0.0
recsys_freshness_seconds_bucket{le="0.02"} 8.0
recsys_freshness_seconds_bucket{le="0.04"} 10.0
recsys_freshness_seconds_bucket{le="+Inf"} 10.0
recsys_freshness_seconds_count 10.0
recsys_freshness_seconds_sum 0.2
"""


def test_quantiles_are_read_off_the_histogram_by_hand() -> None:
    reading = Reading.of(METRICS)
    assert reading.dealt_with == 15
    assert reading.quantile(0.5) == pytest.approx(0.01 + 0.01 * 5 / 8)
    assert reading.quantile(0.9) == pytest.approx(0.03)
    assert (reading - reading).quantile(0.5) is None
