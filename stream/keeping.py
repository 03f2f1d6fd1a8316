"""How exact the store keeps states and lists, by the worker's settings.

A state that is stored in fewer bits is rounded after each click, whether or not the store saw it in between, so how
batches fell leaves no trace here either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.packing import Numbers
from recsys.serving import Served
from recsys.settings import WorkerSettings
from recsys.state import RecommendationList, UserState


class Keeping:
    """Advances states as they will be read again, and packs states and lists."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._numbers = Numbers(settings.state_numbers)
        self._compact_lists = settings.compact_lists

    def advance(self, states: Sequence[UserState], served: Served) -> None:
        """Advance each state by its pending clicks, of which none are left."""
        if not states:
            return
        hidden = np.stack([np.zeros_like(state.hidden) if state.rebuild else state.hidden for state in states])
        clicks = [state.pending for state in states]
        if self._numbers is Numbers.FLOAT32:
            advanced = served.scorer.advance(hidden, clicks)
        else:
            advanced = self._advance_rounded(hidden, clicks, served)
        for state, row in zip(states, advanced, strict=True):
            state.hidden, state.pending, state.rebuild = row.copy(), [], False  # of its own: it may be kept for long

    def pack_state(self, state: UserState, served: Served) -> bytes:
        """The state as bytes."""
        return state.pack(self._numbers, 0 if self._numbers is Numbers.FLOAT32 else _places(served))

    def pack_list(self, recommendations: RecommendationList) -> bytes:
        """The list as bytes."""
        return recommendations.pack(compact=self._compact_lists)

    def _advance_rounded(
        self, hidden: NDArray[np.float32], clicks: Sequence[Sequence[int]], served: Served
    ) -> NDArray[np.float32]:
        """States ``[batch, width]`` after the clicks on the rows given for each; what is no trail is rounded."""
        layers = slice(hidden.shape[1] - _places(served))
        hidden[:, layers] = self._numbers.rounded(hidden[:, layers])
        alive = [index for index, rows in enumerate(clicks) if rows]
        click = 0
        while alive:
            after = served.scorer.step(hidden[alive], np.array([clicks[index][click] for index in alive], np.int32))
            after[:, layers] = self._numbers.rounded(after[:, layers])
            hidden[alive] = after
            click += 1
            alive = [index for index in alive if len(clicks[index]) > click]
        return hidden


def _places(served: Served) -> int:
    """Numbers of a trail, which are the last of a hidden state."""
    return served.bundle.model.description.model.memory + 1
