"""What a run goes through next: all sessions until that helps no more, then ever newer ones.

A log of many days is mostly of days whose items nobody looks for any more, as with news, and Adagrad, which slows down
with all that it has seen, has hardly a step left for the last hours. So after its best epoch a search narrows down: it
goes once through the newest half of the sessions, then through the newest quarter, and so on, each time with its steps
as long as at first. All that takes less than another epoch. Validation says which of these weights are the best: in a
shop, or where the log is of one day, those before the first of them. The refit then does the same over all sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

import numpy as np

from recsys.model.history import Epoch, Phase, best_epoch
from recsys.sessions import Sessions
from recsys.settings import TrainingSettings


def next_share(history: Sequence[Epoch], phase: Phase, settings: TrainingSettings) -> float | None:
    """Share of the sessions, the newest, that the next epoch of ``phase`` goes through; None when it is over.

    A search ends its epochs over all sessions when ``patience`` of them have brought nothing better, and then halves
    the sessions ``halvings`` times. A final training after a search does what led to the best of its epochs; another
    one goes through all sessions ``epochs`` times.
    """
    searched = [epoch for epoch in history if epoch.validation]
    done = [epoch for epoch in history if epoch.phase == phase]
    narrowed = sum(epoch.share < 1 for epoch in done)
    wanted, halvings = settings.epochs, 0
    if phase == "search":
        if settings.schedule == "constant":  # at the end of the others there is no step left
            halvings = settings.halvings
        if searched and searched[-1].number - best_whole_epoch(searched).number >= settings.patience:
            wanted = 0
    elif searched:
        wanted, share = best_whole_epoch(searched).number, best_epoch(searched).share
        halvings = round(-log2(share))
    if not narrowed and len(done) < wanted:
        return 1.0
    return 0.5 ** (narrowed + 1) if narrowed < halvings else None


def best_whole_epoch(history: Sequence[Epoch]) -> Epoch:
    """The best one of those that have gone through all sessions: from there, the search narrows down."""
    return best_epoch([epoch for epoch in history if epoch.share == 1])


def newest_share(sessions: Sessions, share: float) -> Sessions:
    """The last sessions with so much of all events, and at least one that has two."""
    after = np.cumsum(sessions.lengths[::-1])[::-1]
    last = np.flatnonzero(sessions.lengths > 1)[-1]
    return sessions.keep_sessions((after <= share * sessions.events) | (np.arange(len(sessions)) >= last))
