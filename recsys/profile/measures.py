"""What a profile counts, over one file of the dataset at a time: memory holds a file and 24 bytes a session."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.dataset import SPLITS, Dataset, sessions_of
from recsys.errors import DatasetError
from recsys.hashing import hash_texts
from recsys.sessions import Sessions

HOUR_MS = 3_600_000
# Bounds of the bins in which gaps are counted, in milliseconds; the first begins at 0 and the last has no end.
GAP_BINS: NDArray[np.float64] = np.geomspace(1e3, 90 * 24 * HOUR_MS, 73)


@dataclass(frozen=True)
class Profile:
    """How the clicks of a dataset lie in time, and how they group.

    Attributes:
        users: how many users there are.
        first_ms, last_ms: times of the first and last click, epoch milliseconds.
        hours: clicks of each hour that has any, by hours since 1970 (UTC), ascending.
        lengths: sessions of each length, by clicks, ascending.
        gaps_within: int64 ``[len(GAP_BINS) - 1]``, gaps between neighbouring clicks of a session.
        gaps_between: the same for gaps between a session's last click and the first of the user's next session.
    """

    users: int
    first_ms: int
    last_ms: int
    hours: dict[int, int]
    lengths: dict[int, int]
    gaps_within: NDArray[np.int64]
    gaps_between: NDArray[np.int64]

    @property
    def sessions(self) -> int:
        """How many sessions there are."""
        return sum(self.lengths.values())

    @property
    def events(self) -> int:
        """How many clicks there are."""
        return sum(self.hours.values())

    @property
    def median_length(self) -> int:
        """Half of the sessions have so many clicks or fewer."""
        reached = np.cumsum(list(self.lengths.values()))
        return list(self.lengths)[int(np.searchsorted(reached, self.sessions / 2))]

    @property
    def by_hour_of_day(self) -> NDArray[np.int64]:
        """int64 ``[24]``: clicks by hour of the day, UTC."""
        hours, counts = np.array(list(self.hours.items())).T
        return np.bincount(hours % 24, counts, 24).astype(np.int64)


def measure(data: Dataset) -> Profile:
    """Count what a profile shows.

    Raises:
        DatasetError: the dataset holds no session.
    """
    hours, lengths = Counter[int](), Counter[int]()
    within = np.zeros(len(GAP_BINS) - 1, np.int64)
    spans: list[tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]] = []
    for path in data.session_files(*SPLITS):
        sessions, users = sessions_of(data.read_file(path))
        _add(hours, sessions.times // HOUR_MS)
        _add(lengths, sessions.lengths)
        within += binned(gaps_within(sessions))
        spans.append((hash_texts(users), sessions.times[sessions.starts[:-1]], sessions.times[sessions.starts[1:] - 1]))
    if not lengths:
        raise DatasetError(f"{data.path}: holds no session")
    owners, firsts, lasts = (np.concatenate(column) for column in zip(*spans, strict=True))
    return Profile(
        users=len(np.unique(owners)),
        first_ms=int(firsts.min()),
        last_ms=int(lasts.max()),
        hours=dict(sorted(hours.items())),
        lengths=dict(sorted(lengths.items())),
        gaps_within=within,
        gaps_between=binned(gaps_between(owners, firsts, lasts)),
    )


def gaps_within(sessions: Sessions) -> NDArray[np.int64]:
    """Milliseconds between neighbouring clicks of each session: int64 ``[events - sessions]``."""
    inner = np.ones(sessions.events, np.bool_)
    inner[sessions.starts[:-1]] = False
    return np.diff(sessions.times, prepend=sessions.times[:1])[inner]


def gaps_between(owners: NDArray[np.uint64], firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Milliseconds from the end of a session to the user's next: int64 ``[sessions - users]``.

    Takes each session's user, first and last time, ``[sessions]``. Sessions of the log's own may overlap: then 0.
    """
    order = np.lexsort((lasts, firsts, owners))
    same = owners[order][1:] == owners[order][:-1]
    gaps: NDArray[np.int64] = np.maximum(firsts[order][1:] - lasts[order][:-1], 0)[same]
    return gaps


def binned(gaps: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many gaps are in each of :data:`GAP_BINS`: int64 ``[len(GAP_BINS) - 1]``."""
    places = np.searchsorted(GAP_BINS, gaps, side="right") - 1
    return np.bincount(places.clip(0, len(GAP_BINS) - 2), minlength=len(GAP_BINS) - 1)


def _add(counts: Counter[int], values: NDArray[np.int64]) -> None:
    found, numbers = np.unique(values, return_counts=True)
    counts.update(dict(zip(found.tolist(), numbers.tolist(), strict=True)))
