"""What training and tuning are judged by: metrics of weights on validation sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys.evaluation.protocol import evaluate
from recsys.scoring.scorer import Scorer
from recsys.sessions import Sessions
from recsys.vocabulary import Vocabulary

if TYPE_CHECKING:
    from recsys.model.network import Weights
    from recsys.model.training import Validate


def validation_on(sessions: Sessions, vocabulary: Vocabulary) -> Validate:
    """A function from weights to the metrics of the evaluation protocol on ``sessions``, by name."""

    def validate(weights: Weights) -> dict[str, float]:
        return evaluate(Scorer(weights), sessions, vocabulary.counts).as_dict()

    return validate
