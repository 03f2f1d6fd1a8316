"""V-SKNN: the similar recent sessions vote, and late items of the session at hand decide what is similar.

After Ludewig and Jannach, "Evaluation of Session-based Recommendation Algorithms", User Modeling and User-Adapted
Interaction 2018: "Vector Multiplication Session-Based kNN", the evolving session as a vector that decays linearly from
its last item, times the past sessions as binary vectors. Votes there count by similarity alone. Here they also count
less the longer ago the newest shared item is, and more for rare items, as in later comparisons by the same authors.
Both were chosen by Recall@20 on validation sessions of a shop's log.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.neighbours import SessionKNN


class VSKNN(SessionKNN):
    """Votes decay as 1 / b, the newest shared item being the b-th from the end."""

    name = "V-SKNN"

    def decay(self, newest: NDArray[np.int64]) -> NDArray[np.float64]:
        """1 / b."""
        return 1.0 / newest
