"""The mean of the weights over the end of an epoch (Polyak and Juditsky 1992), beside the weights at its very end.

Steps of constant size never settle: weights wander around what they have learnt, and their mean is nearer to it. But
where visitors want something else every hour, as readers of news do, the mean lags behind, and the last weights are
better by far: a tenth. So the mean serves unless validation finds the last weights clearly better.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys.model.network import Weights

SHARE, LOOKS = 0.1, 8  # of an epoch's windows, how many are averaged over, and how many times weights are looked at


class TailAverage:
    """Gathers the mean of the weights over the end of an epoch of ``windows`` windows.

    Attributes:
        sums: the weights of all looks so far, added up: what a run that goes on in the middle of an epoch needs.
    """

    def __init__(self, windows: int, sums: Mapping[str, NDArray[np.float32]] | None = None) -> None:
        self._looks = {windows - int(SHARE * windows * look / LOOKS) for look in range(LOOKS)}
        self.sums: Weights = dict(sums or {})

    def due(self, window: int) -> bool:
        """Whether to look when so many windows are learnt."""
        return window in self._looks

    def add(self, weights: Weights) -> None:
        """Look at ``weights``, which are the average's from now on."""
        if not self.sums:
            self.sums = weights
            return
        for name, weight in weights.items():
            np.add(self.sums[name], weight, out=self.sums[name])

    def take_mean(self) -> Weights:
        """The mean of all looks, which are then forgotten: large tables are not held twice."""
        mean, self.sums = self.sums, {}
        for total in mean.values():
            np.divide(total, np.float32(len(self._looks)), out=total)
        return mean
