"""Clicks as a trend looks at them: what was clicked, and the state that the click met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray


class Clicks(NamedTuple):
    """Clicks that led sessions on: what they met, what they were on, and when they were made.

    Attributes:
        hidden: float32 ``[n, width]``, the states before them.
        targets: int32 ``[n]``, rows of their items.
        times: int64 ``[n]``, epoch milliseconds.
    """

    hidden: NDArray[np.float32]
    targets: NDArray[np.int32]
    times: NDArray[np.int64]

    @classmethod
    def none(cls, width: int) -> Self:
        """No clicks."""
        return cls(np.empty((0, width), np.float32), np.empty(0, np.int32), np.empty(0, np.int64))

    @classmethod
    def together(cls, some: Sequence[Clicks]) -> Self:
        """All of some."""
        return cls(*(np.concatenate(column) for column in zip(*some, strict=True)))

    def keep(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Clicks:
        """Some of them."""
        return Clicks(self.hidden[which], self.targets[which], self.times[which])

    def spread(self, most: int) -> Clicks:
        """At most so many, from all over."""
        return self.keep(spread(np.arange(len(self.targets)), most))


def spread(some: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many, from all over."""
    return some if len(some) <= most else some[np.linspace(0, len(some) - 1, most).astype(np.int64)]
