"""One step of learning, against arithmetic done by hand."""

import numpy as np
import pytest

from recsys.model.batches import session_parallel
from recsys.model.learner import Learner
from recsys.model.network import FITTED, initial_weights
from recsys.scoring.scorer import Scorer
from recsys.settings import ModelSettings, TrainingSettings

from .logs import sessions_of

ROWS = [[0, 1, 2], [3, 1, 4], [2, 1, 0], [1, 4, 1]]  # of two lanes, each a window


@pytest.mark.parametrize("logq", [0.0, 0.5, 1.0])
def test_the_loss_is_the_softmax_over_other_visitors_clicks_with_logq(logq: float) -> None:
    """Item 1 is 4 of 8 targets, item 4 is 2, items 0 and 2 are one each; of 4 clicks in a window, 2 are another's."""
    sessions = sessions_of(ROWS)
    settings = TrainingSettings(
        precision="float32", samples=0, logq=logq, hidden_dropout=0, embedding_dropout=0, batch_size=2
    )
    batches = session_parallel(sessions, 2, 2)
    weights = initial_weights(5, ModelSettings(units=6), seed=1)
    weights["bias"] = np.array([0.3, -0.2, 0.5, 0.1, -0.4], np.float32)
    expected_count = 2 * np.array([1, 4, 1, 0, 2]) / 8

    scores = np.concatenate(list(Scorer(weights).predict(sessions))).astype(np.float64).reshape(4, 2, 5)
    loss = 0.0
    for own, other in ((0, 1), (1, 0)):
        for click in range(2):
            target, score = ROWS[own][click + 1], scores[own, click]
            # In this log no item follows itself, so the one just clicked is no rival.
            rivals = [item for item in ROWS[other][1:] if item not in (target, ROWS[own][click])]
            weighted = [np.exp(score[item]) / expected_count[item] ** logq for item in rivals]
            loss += np.log1p(sum(weighted) / np.exp(score[target]))

    learner = Learner(weights, batches, settings)
    list(learner.learn(range(1), 0))
    assert learner.loss_sum == pytest.approx(loss, rel=1e-5)


def gradient_norm(clip: float) -> float:
    """The norm of the gradient that the first step goes by: Adam then holds a tenth of each number of it."""
    settings = TrainingSettings(
        precision="float32", samples=0, clip_norm=clip, batch_size=2, seed=3, optimizer="adam", learning_rate=0.001
    )
    batches = session_parallel(sessions_of(ROWS), 2, 2)
    learner = Learner(initial_weights(5, ModelSettings(units=6), seed=1), batches, settings)
    list(learner.learn(range(1), 0))
    squares = [((10 * value.numpy()) ** 2).sum() for name, value in learner.state.items() if name.startswith("mean.")]
    assert len(squares) == len(learner.weights.keys() - set(FITTED))
    return float(np.sqrt(sum(squares)))


def test_gradients_of_all_weights_together_are_clipped() -> None:
    whole = gradient_norm(0.0)
    assert gradient_norm(whole / 3) == pytest.approx(whole / 3, rel=1e-5)
    assert gradient_norm(whole * 3) == pytest.approx(whole, rel=1e-5)


def test_steps_go_by_the_schedule() -> None:
    """Adagrad's first change is as long as the rate; the first of 2 steps of warmup has half of it."""
    batches = session_parallel(sessions_of(ROWS), 2, 2)
    start = initial_weights(5, ModelSettings(units=6), seed=1)
    moved = []
    for warmup in (0.0, 0.5):
        settings = TrainingSettings(
            precision="float32", samples=0, batch_size=2, learning_rate=0.1, warmup=warmup, epochs=2
        )
        assert len(batches) * settings.epochs == 4
        learner = Learner(start, batches, settings)
        list(learner.learn(range(1), 0))
        moved.append(learner.weights["gru.0.kernel"] - start["gru.0.kernel"])
    np.testing.assert_allclose(moved[1], moved[0] / 2, atol=1e-7)
