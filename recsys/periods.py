"""Which times each split of a dataset may hold: checked whenever sessions are read, since a leak shows in no figure.

A session belongs to the split in whose period it begins. A training or validation session that reaches over the test
boundary has been cut there, so nothing from the test period is ever learnt from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DatasetError
from recsys.sessions import Sessions

_ALWAYS, _NEVER = -(1 << 62), 1 << 62


@dataclass(frozen=True)
class Period:
    """When the sessions of a split begin, ``begins_from <= begin < begins_before``, and that all events are before
    ``events_before``. Epoch milliseconds."""

    split: str
    begins_from: int = _ALWAYS
    begins_before: int = _NEVER
    events_before: int = _NEVER

    @classmethod
    def of(cls, split: str, validation_from: int | None, test_from: int | None) -> Period:
        """The period of ``train``, ``validation`` or ``test``, given the boundaries (``None``: no such part)."""
        test = _NEVER if test_from is None else test_from
        validation = test if validation_from is None else validation_from
        return {
            "train": cls(split, begins_before=validation, events_before=test),
            "validation": cls(split, begins_from=validation, begins_before=test, events_before=test),
            "test": cls(split, begins_from=test),
        }[split]

    def check(self, sessions: Sessions, path: Path) -> None:
        """Refuse the sessions of the file ``path`` unless they are of this period.

        Raises:
            DatasetError: names the file and the first time that cannot be.
        """
        times, starts = sessions.times, sessions.starts[:-1][sessions.lengths > 0]
        back = np.diff(times, prepend=times[:1]) < 0
        back[starts] = False
        begins = times[starts]
        _refuse(path, times[back], "goes back in time within a session, at")
        _refuse(path, begins[begins < self.begins_from], f"holds a {self.split} session that begins too early, at")
        _refuse(path, begins[begins >= self.begins_before], f"holds a {self.split} session that begins too late, at")
        _refuse(path, times[times >= self.events_before], f"holds a {self.split} event of the test period, at")


def _refuse(path: Path, times: NDArray[np.int64], what: str) -> None:
    if len(times):
        at = np.datetime64(int(times.min()), "ms")
        raise DatasetError(f"{path}: {what} {at}Z: this dataset is not split by time as its manifest says")
