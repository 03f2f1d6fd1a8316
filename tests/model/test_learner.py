"""One step of learning, against arithmetic done by hand."""

import numpy as np
import pytest

from recsys.model.batches import session_parallel
from recsys.model.learner import Learner
from recsys.model.network import initial_weights
from recsys.scorer import Scorer
from recsys.settings import ModelSettings, TrainingSettings

from .logs import sessions_of

ROWS = [[0, 1, 2], [3, 1, 4], [2, 1, 0], [1, 4, 1]]  # of two lanes, each a window


@pytest.mark.parametrize("logq", [0.0, 0.5, 1.0])
def test_the_loss_is_the_softmax_over_other_visitors_clicks_with_logq(logq: float) -> None:
    """Item 1 is 4 of 8 targets, item 4 is 2, items 0 and 2 are one each; of 4 clicks in a window, 2 are another's."""
    sessions = sessions_of(ROWS)
    settings = TrainingSettings(samples=0, logq=logq, hidden_dropout=0, embedding_dropout=0, batch_size=2)
    batches = session_parallel(sessions, 2, 2)
    weights = initial_weights(5, ModelSettings(units=6), seed=1)
    weights["bias"] = np.array([0.3, -0.2, 0.5, 0.1, -0.4], np.float32)
    expected_count = 2 * np.array([1, 4, 1, 0, 2]) / 8

    scores = np.concatenate(list(Scorer(weights).predict(sessions))).astype(np.float64).reshape(4, 2, 5)
    loss = 0.0
    for own, other in ((0, 1), (1, 0)):
        for click in range(2):
            target, score = ROWS[own][click + 1], scores[own, click]
            rivals = [item for item in ROWS[other][1:] if item != target]
            weighted = [np.exp(score[item]) / expected_count[item] ** logq for item in rivals]
            loss += np.log1p(sum(weighted) / np.exp(score[target]))

    learner = Learner(weights, batches, settings)
    learner.step(batches, 0, 0)
    assert learner.loss_sum == pytest.approx(loss, rel=1e-5)
