"""VMIS-kNN: what the most similar recent sessions went on to.

After Kersbergen, Sprangers and Schelter, "Serenade: Low-Latency Session-Based Recommendation in e-Commerce at Scale",
SIGMOD 2022. The weights are one reading of the method and have not been compared with the authors' program.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.neighbours import SessionKNN


class VMISKNN(SessionKNN):
    """Votes decay as 1 - 0.1 * b, the newest shared item being the b-th from the end; from the tenth on they are 0."""

    name = "VMIS-kNN"

    def decay(self, newest: NDArray[np.int64]) -> NDArray[np.float64]:
        """1 - 0.1 * b, or 0."""
        weight: NDArray[np.float64] = np.maximum(0, 1 - 0.1 * newest)
        return weight
