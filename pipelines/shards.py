"""Clicks of one shard of users become sessions.

A shard holds all clicks of its users, so sessions are cut inside it. Between steps it is an Arrow file of sessions,
whose items and types are numbered within the shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.places import Place
from recsys.dataset import sessions_of, table_of
from recsys.sessions import NO_ID, Assembled, SessionRule, Sessions, assemble

_NEVER_MS = 1 << 62  # a gap that no two clicks have: the log's own sessions are not cut again


@dataclass(frozen=True)
class Shard:
    """The sessions of a shard.

    Attributes:
        made: the sessions, and what became of the other clicks.
        users: the user of each session.
        items, types: the ids that the codes of the sessions mean; types in byte order.
    """

    made: Assembled
    users: pa.LargeStringArray
    items: pa.LargeStringArray
    types: pa.LargeStringArray


def cut(clicks: pa.Table, rule: SessionRule) -> Shard:
    """The sessions of clicks in columns: user, item, time, type, and where there are any event_id and session."""
    item_codes, items = _encode(clicks["item"])

    def rank(codes: NDArray[np.int32]) -> NDArray[np.int32]:
        some, places = np.unique(codes, return_inverse=True)
        return _ranks(items.take(pa.array(some)))[places]

    # More types than codes are refused when those of all shards are known, so that the codes do not matter then.
    type_codes, types = _encode(clicks["type"])
    type_ranks = _ranks(types)
    event_ids = clicks["event_id"].fill_null(NO_ID).to_numpy() if "event_id" in clicks.column_names else None
    columns = (item_codes, clicks["time"].to_numpy(), type_ranks[type_codes].astype(np.int8), event_ids)
    user_codes, user_ids = _encode(clicks["user"])
    if "session" in clicks.column_names:
        sessions, session_ids = _encode(clicks["session"])
        pairs, keys = np.unique(user_codes.astype(np.int64) * len(session_ids) + sessions, return_inverse=True)
        made = assemble(keys, *columns, SessionRule(_NEVER_MS, rule.collapse_repeats), rank)
        owners = pairs[made.users] // len(session_ids)
    else:
        made = assemble(user_codes.astype(np.int64), *columns, rule, rank)
        owners = made.users
    return Shard(made, user_ids.take(pa.array(owners)), items, types.take(pc.sort_indices(types)))


def _encode(texts: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.LargeStringArray]:
    """A code for each text, and the texts of the codes, in the order in which they come."""
    if pa.types.is_dictionary(texts.type):
        encoded = texts.unify_dictionaries().combine_chunks()
    else:
        # One chunk: each would come with a dictionary of its own.
        encoded = texts.cast(pa.large_string()).combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary.cast(pa.large_string())


def _ranks(texts: pa.LargeStringArray) -> NDArray[np.int32]:
    """The place of each of the texts, all different, in byte order."""
    ranks = np.empty(len(texts), np.int32)
    ranks[pc.sort_indices(texts).to_numpy()] = np.arange(len(texts), dtype=np.int32)
    return ranks


def save(place: Place, sessions: Sessions, users: pa.Array) -> None:
    """Write a shard of sessions."""
    table = table_of(sessions, users)
    with place.writer() as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def load(place: Place) -> tuple[Sessions, pa.Array]:
    """Read a shard of sessions and their users."""
    with place.reader() as file:
        return sessions_of(pa.ipc.open_file(file).read_all())


def shards_of(work: Place) -> Sequence[Place]:
    """The shards as they are now: those without bots, once these are out."""
    return (work / "people").children() or (work / "cut").children()
