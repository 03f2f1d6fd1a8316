"""How many clicks make a batch that does not take long: a worker that is asked to stop first ends the one in hand."""

from __future__ import annotations

BATCH_SECONDS = 2.0


class Pace:
    """Measures the batches, and bounds the next one.

    Args:
        few: clicks of a batch that is never too long.
        many: most clicks of a batch.
        seconds: how long a batch of more than ``few`` clicks should take at most.
    """

    def __init__(self, few: int, many: int, seconds: float = BATCH_SECONDS) -> None:
        self._few, self._many, self._seconds = few, many, seconds
        self.most = few

    def took(self, clicks: int, seconds: float) -> None:
        """A batch of so many clicks took so long. Few clicks do not tell what many cost."""
        if clicks >= self._few:
            bound = self._many if seconds <= 0 else int(clicks * self._seconds / seconds)
            self.most = max(self._few, min(self._many, bound))
