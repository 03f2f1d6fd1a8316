"""What sessions ask of a network that has learnt: the state, the trail and the target of each prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.model.network import REVISIT, hidden_states, output_table, width
from recsys.sessions import Sessions
from recsys.trail import trails

CHUNK_BYTES = 64 << 20  # scores held at a time


@dataclass(frozen=True)
class Asked:
    """Predictions in order: every click of a session but its first.

    Attributes:
        states: float32 ``[n, units]``, of the top layer, after the click before.
        trail: int32 ``[n, 1 + memory]``, as :mod:`recsys.trail` says.
        targets: int32 ``[n]``, the items clicked.
        times: int64 ``[n]``, when (epoch ms).
    """

    states: NDArray[np.float32]
    trail: NDArray[np.int32]
    targets: NDArray[np.int32]
    times: NDArray[np.int64]

    @classmethod
    def of(cls, weights: Mapping[str, NDArray[np.float32]], sessions: Sessions) -> Asked:
        """All predictions of ``sessions``."""
        asks = np.ones(sessions.events, np.bool_)
        asks[sessions.starts[1:][sessions.lengths > 0] - 1] = False
        trail = trails(sessions, len(weights[REVISIT]) - 1)[asks]
        states = hidden_states(dict(weights), sessions)[asks][:, -width(weights) :]
        return cls(states, trail, sessions.items[1:][asks[:-1]], sessions.times[1:][asks[:-1]])

    def __len__(self) -> int:
        return len(self.targets)

    def keep(self, which: NDArray[np.bool_]) -> Asked:
        """Some of the predictions: where ``which [n]`` says so."""
        return Asked(self.states[which], self.trail[which], self.targets[which], self.times[which])

    def scores(self, weights: Mapping[str, NDArray[np.float32]]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Scores by the network alone, without what the trail adds: which predictions, ``[chunk, items]``."""
        table, bias = weights[output_table(weights)], weights["bias"]
        size = max(1, CHUNK_BYTES // (4 * len(bias)))
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield part, self.states[part] @ table.T + bias

    def places(self, part: slice) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
        """The row (of ``part``), the item and the place in its trail of all items of trails."""
        row, place = np.nonzero(self.trail[part])
        return row, self.trail[part][row, place] - 1, place


def newest(sessions: Sessions, wanted: int) -> Sessions:
    """The last sessions, with about so many predictions."""
    predictions = np.maximum(sessions.lengths - 1, 0)
    return sessions.keep_sessions(np.cumsum(predictions[::-1])[::-1] <= max(wanted, predictions.max(initial=0)))
