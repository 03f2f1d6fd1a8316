"""What a training run says of its epochs, and which of them is the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

STOP_METRICS = "recall@20", "mrr@20"  # the best epoch has the highest product of them
CLEARLY = 1.02  # times as good, by that product: validation is not sure of less

Phase = Literal["search", "final"]


@dataclass(frozen=True)
class Epoch:
    """What an epoch brought.

    ``search`` epochs learn from training sessions and are validated; ``final`` epochs learn from all sessions before
    the test boundary. ``share`` says how much of these an epoch goes through, the newest, where it is not all of them
    (:mod:`recsys.model.narrowing`). ``loss`` is the mean over events. ``trend`` and ``following`` say how far what rose
    when training ended, and what followed what, held in the validation sessions (:mod:`recsys.model.strengths`).
    ``averaged`` says whether the weights are the mean over the end of the epoch, or the last ones
    (:mod:`recsys.model.averaging`).
    """

    phase: Phase
    number: int
    loss: float
    events_per_second: float
    validation: dict[str, float] = field(default_factory=dict)
    trend: float = 0.0
    following: float = 0.0
    averaged: bool = False
    share: float = 1.0


@dataclass(frozen=True)
class Progress:
    """How far an epoch is."""

    phase: Phase
    epoch: int
    epochs: int
    window: int
    windows: int
    loss: float
    events_per_second: float


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The validated epoch with the highest Recall@20 times MRR@20, the first of equals.

    One that has gone through the newest sessions alone has to be clearly better than those that went through all.
    """
    validated = [epoch for epoch in history if epoch.validation]
    best = max(validated, key=worth)
    whole = max((epoch for epoch in validated if epoch.share == 1), key=worth)
    return best if worth(best) > CLEARLY * worth(whole) else whole


def worth(epoch: Epoch) -> float:
    """What validation says of an epoch, as one number."""
    return prod(epoch.validation[metric] for metric in STOP_METRICS)
