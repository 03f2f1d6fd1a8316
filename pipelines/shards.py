"""Clicks of one shard of users: how they travel, and how they become sessions.

A shard holds all clicks of its users, so sessions are cut inside it. Between steps it is an Arrow file of sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.columns import EventColumns
from recsys.dataset import sessions_of, table_of
from recsys.errors import InputError
from recsys.hashing import hash_texts
from recsys.sessions import NO_ID, Assembled, SessionRule, Sessions, assemble

MAX_TYPES = 127  # codes are int8
_NEVER_MS = 1 << 62  # a gap that no two clicks have: the log's own sessions are not cut again
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")


def partition(events: EventColumns, shards: int) -> Iterator[tuple[int, bytes]]:
    """The events of each shard as Arrow bytes; a user's shard depends on nothing but the user id."""
    owner = (hash_texts(events.users) % np.uint64(shards)).astype(np.int64)
    order = np.argsort(owner, kind="stable")
    # What travels is copied several times on its way: narrow offsets, few words spelt once, nothing that is absent.
    columns = {
        "user": events.users.cast(pa.string()),
        "item": events.items.cast(pa.string()),
        "time": pa.array(events.times),
        "type": events.types.dictionary_encode(),
    }
    if events.event_ids.any():
        columns["event_id"] = pa.array(events.event_ids)
    if events.sessions is not None:
        columns["session"] = events.sessions.cast(pa.string())
    table = pa.table(columns).take(pa.array(order)).combine_chunks()
    bounds = np.searchsorted(owner[order], np.arange(shards + 1))
    for shard in np.flatnonzero(np.diff(bounds)).tolist():
        yield shard, to_bytes(table.slice(bounds[shard], bounds[shard + 1] - bounds[shard]))


def cut(pieces: Iterable[bytes], rule: SessionRule) -> tuple[Assembled, pa.Array, pa.Array, pa.Array]:
    """The sessions of a shard, the user of each, and the ids of items and of types, ascending, that its codes mean.

    Raises:
        InputError: more than :data:`MAX_TYPES` event types.
    """
    table = pa.concat_tables([from_bytes(piece) for piece in pieces], promote_options="default")
    item_codes, item_ids = encode(table["item"])
    items = item_codes.astype(np.int32)
    types, type_ids = encode(table["type"])
    check_types(len(type_ids))
    users, user_ids = encode(table["user"])
    event_ids = table["event_id"].fill_null(NO_ID).to_numpy() if "event_id" in table.column_names else None
    if "session" in table.column_names:
        sessions, session_ids = encode(table["session"])
        pairs, keys = np.unique(users * len(session_ids) + sessions, return_inverse=True)
        made = assemble(keys, items, table["time"].to_numpy(), types.astype(np.int8), event_ids, _as_given(rule))
        owners = user_ids.take(pa.array(pairs[made.users] // len(session_ids)))
    else:
        made = assemble(users, items, table["time"].to_numpy(), types.astype(np.int8), event_ids, rule)
        owners = user_ids.take(pa.array(made.users))
    return made, owners, item_ids, type_ids


def check_types(types: int) -> None:
    """Refuse more event types than a code can tell apart.

    Raises:
        InputError: says how many there are.
    """
    if types > MAX_TYPES:
        raise InputError(
            f"the log has {types} event types, at most {MAX_TYPES} can be told apart: is the column right?"
        )


def encode(texts: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.LargeStringArray]:
    """A code for each text, and the texts of the codes in byte order."""
    encoded = texts.dictionary_encode().unify_dictionaries()
    words = encoded.chunk(0).dictionary.cast(pa.large_string())
    order = pc.sort_indices(words)
    rank = np.empty(len(order), np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    return np.concatenate([rank[chunk.indices.to_numpy()] for chunk in encoded.chunks]), words.take(order)


def save(path: Path, sessions: Sessions, users: pa.Array) -> None:
    """Write a shard of sessions; a worker that repeats the step replaces the file by an equal one."""
    table = table_of(sessions, users)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    with pa.ipc.new_file(str(aside), table.schema) as writer:
        writer.write_table(table)
    aside.replace(path)


def load(path: Path) -> tuple[Sessions, pa.Array]:
    """Read a shard of sessions and their users."""
    with pa.memory_map(str(path)) as file:
        return sessions_of(pa.ipc.open_file(file).read_all())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is never seen half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    aside.write_bytes(data)
    aside.replace(path)


def to_bytes(table: pa.Table) -> bytes:
    """A table in Arrow's stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_COMPRESSED) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def from_bytes(data: bytes) -> pa.Table:
    """The table that :func:`to_bytes` wrote."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all().combine_chunks()


def _as_given(rule: SessionRule) -> SessionRule:
    return SessionRule(_NEVER_MS, rule.collapse_repeats)
