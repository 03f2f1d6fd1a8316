"""A name for a set of sessions, whatever their order, that is added up from those of its parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from recsys.hashing import hash_texts, scramble
from recsys.sessions import Sessions

_IN_CACHE = 1 << 15  # events whose columns stay in a core's cache


def fingerprint(sessions: Sessions, user_ids: Sequence[str] | pa.Array) -> str:
    """128 bits, in hexadecimal, that name a set of sessions in any order; :func:`add_fingerprints` joins parts.

    It tells two datasets apart; tampering is what the files' SHA-256 are for.
    """
    users = hash_texts(user_ids)
    low = high = 0
    columns = (sessions.owner, sessions.items, sessions.times, sessions.types)
    for first in range(0, sessions.events, _IN_CACHE):
        owner, *values = (column[first : first + _IN_CACHE] for column in columns)
        position = np.arange(first, first + len(owner)) - sessions.starts[owner]
        state = users[owner]
        for column in (position, *values):
            state = scramble(state ^ scramble(column.astype(np.uint64)))
        low, high = (lane + int(np.sum(words)) for lane, words in ((low, state), (high, scramble(state))))
    return f"{high % (1 << 64):016x}{low % (1 << 64):016x}"


def add_fingerprints(first: str, second: str) -> str:
    """The fingerprint of two sets of sessions together."""
    lanes = ((int(first[at : at + 16], 16) + int(second[at : at + 16], 16)) % (1 << 64) for at in (0, 16))
    return "".join(f"{lane:016x}" for lane in lanes)
