"""A million items of a hundred units train, save and serve within 6 GiB."""

import subprocess
import sys
from pathlib import Path

from tests.peak import PRINT_PEAK

A_MILLION = """
import sys
from pathlib import Path
import numpy as np
from recsys.model.training import fit
from recsys.scoring.scorer import Scorer
from recsys.settings import ModelSettings, TrainingSettings
from tests.model.logs import sessions_of

random = np.random.default_rng(1)
log = sessions_of(random.integers(1_000_000, size=(60, 6)).tolist())

def validate(weights):
    scorer = Scorer(weights)
    scorer.top_k(scorer.step(scorer.start(1), np.zeros(1, np.int32)), 20)
    return {"recall@20": 0.0, "mrr@20": 0.0}

settings = TrainingSettings(epochs=1, halvings=1)
run = dict(validate=validate, later=log, checkpoint=Path(sys.argv[1]))
assert "followers" in fit(log, log, 1_000_000, ModelSettings(), settings, **run).weights
"""


def test_a_million_items(tmp_path: Path) -> None:
    command = [sys.executable, "-c", A_MILLION + PRINT_PEAK, str(tmp_path / "checkpoint.safetensors")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert 1 < int(result.stdout) / 2**20 < 6
