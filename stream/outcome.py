"""What became of a micro-batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.dead_letter import DeadLetter, Record
from stream.online import Trial


class Led(NamedTuple):
    """A click that led a session on: whose, the state before it ``[width]``, its item's row, its time (epoch ms)."""

    user: str
    hidden: NDArray[np.float32]
    row: int
    time: int


@dataclass
class Outcome:
    """What became of a micro-batch. The counts of ``applied``, ``skipped`` and ``dead`` add up to its records.

    ``stale`` counts the writes that the store refused, and that were made anew; ``seconds`` has the time of each part
    of the work; ``visible`` the records whose lists the batch brought up to date; ``clicked`` by model version the rows
    of the items that were clicked, unknown ones among them; ``led`` by model digest the clicks that led sessions on,
    where the state before them is at hand; ``trials`` the clicks as tests of the lists they met, and ``unexamined``
    counts those that were not looked at.
    """

    applied: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    dead: list[DeadLetter] = field(default_factory=list)
    lists: int = 0
    rebuilt: int = 0
    lost_states: int = 0
    stale: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    visible: list[Record] = field(default_factory=list)
    clicked: dict[str, list[int]] = field(default_factory=dict)
    led: dict[int, list[Led]] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    unexamined: int = 0
