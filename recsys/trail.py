"""The trail of a session: its last clicks, item by item.

The GRU's state blurs which items a visitor has just seen. The trail keeps them, so that the model can say how much
likelier, or less likely, each is to be clicked again: by one learned number for each place in the trail (a plain form
of the repeat mode of Ren et al. 2019, "RepeatNet").

A trail is ``[1 + memory]`` numbers, newest click first: the item's row + 1, and 0 where there is none. An item stands
in it once, at its latest click. A trail of zeros is a session that has not begun.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.sessions import Sessions

MOST_ITEMS = 1 << 24  # higher rows are no exact float32, and states keep trails as such


def extend(trails: NDArray[np.float32], rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """Trails ``[n, 1 + memory]`` after one more click each, on ``rows [n]``."""
    clicked = (rows + 1).astype(np.float32)[:, None]
    kept = trails[:, :-1]
    return np.concatenate([clicked, np.where(kept == clicked, np.float32(0), kept)], axis=1)


def trail_of(rows: Sequence[int], places: int) -> list[int]:
    """The trail, of ``places`` numbers, of a session with clicks on these rows."""
    newest = rows[: -places - 1 : -1]
    trail = [row + 1 if row not in newest[:place] else 0 for place, row in enumerate(newest)]
    return trail + [0] * (places - len(trail))


def trails(sessions: Sessions, memory: int) -> NDArray[np.int32]:
    """int32 ``[events, 1 + memory]``: the trail after each event of each session."""
    clicked = sessions.items + 1
    position = np.arange(sessions.events) - sessions.starts[sessions.owner]
    found = np.zeros((sessions.events, 1 + memory), np.int32)
    for back in range(min(1 + memory, sessions.events)):
        earlier = np.zeros_like(clicked)
        earlier[back:] = clicked[: len(clicked) - back]
        stands = (found[:, :back] == earlier[:, None]).any(axis=1)
        found[:, back] = np.where((position < back) | stands, 0, earlier)
    return found
