"""Clicks of one shard of users become sessions.

A shard holds all clicks of its users, so sessions are cut inside it: its clicks are put in order and each gets a fate,
then those that count are joined to sessions. Between later steps a shard is an Arrow file of sessions, whose items and
types are numbered within the shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.places import Place
from recsys.dataset import sessions_of, table_of
from recsys.sessions import DUPLICATE, NO_ID, Assembled, SessionRule, Sessions, arrange, join

TEXTS = ("user", "item", "type", "session")
_NEVER_MS = 1 << 62  # a gap that no two clicks have: the log's own sessions are not cut again

Columns = dict[str, NDArray[Any]]  # each [clicks]; texts by their codes


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

    @classmethod
    def of(cls, clicks: pa.Table) -> Shard:
        """The sessions of clicks that :func:`in_order` gave."""
        (users, user_ids), (items, item_ids), (types, type_ids) = (encode(clicks[name]) for name in TEXTS[:3])
        # More types than codes are refused when those of all shards are known, so that the codes do not matter then.
        type_codes = _ranks(type_ids)[types].astype(np.int8)
        times, fates, copies = (clicks[name].to_numpy() for name in ("time", "fate", "copies"))
        made = join(users.astype(np.int64), items, times, type_codes, fates)
        made = replace(made, duplicates=made.duplicates + int(copies.sum()) - len(copies))
        return cls(made, user_ids.take(pa.array(made.users)), item_ids, type_ids.take(pc.sort_indices(type_ids)))


def cut(clicks: pa.Table, rule: SessionRule) -> Shard:
    """The sessions of clicks that come as for :func:`in_order`."""
    ordered = in_order(clicks.append_column("row", pa.array(np.arange(len(clicks)))), rule)
    shard = Shard.of(ordered)
    return replace(shard, made=replace(shard.made, rows=ordered["row"].to_numpy()[shard.made.rows]))


def in_order(clicks: pa.Table, rule: SessionRule) -> pa.Table:
    """Clicks in the order of the rule, each with its ``fate`` (as :func:`recsys.sessions.arrange` says).

    They come in columns: user, item, time, type, and where there are any session, event_id and other numbers. Those
    that are alike in all of these become one, with the number of its ``copies``; they may come with that number, too.
    """
    texts = {name: encode(clicks[name]) for name in TEXTS if name in clicks.column_names}
    columns: Columns = {name: codes for name, (codes, _) in texts.items()}
    columns["copies"] = np.ones(len(clicks), np.int32)
    for name in clicks.column_names:
        if name not in texts:
            columns[name] = clicks[name].fill_null(1 if name == "copies" else NO_ID).to_numpy()
    ids = {name: values.cast(pa.string()) for name, (_, values) in texts.items()}
    order, fates = _arranged(columns, ids, rule)
    columns = _once({name: column[order] for name, column in columns.items()} | {"fate": fates})
    return pa.table(
        {
            name: pa.DictionaryArray.from_arrays(pa.array(column), ids[name]) if name in ids else pa.array(column)
            for name, column in columns.items()
        }
    )


def _arranged(
    columns: Columns, ids: Mapping[str, pa.StringArray], rule: SessionRule
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    def rank(codes: NDArray[np.int32]) -> NDArray[np.int32]:
        some, places = np.unique(codes, return_inverse=True)
        return _ranks(ids["item"].take(pa.array(some)))[places]

    keys = columns["user"].astype(np.int64)
    if "session" in columns:
        keys = keys * len(ids["session"]) + columns["session"]
        rule = SessionRule(_NEVER_MS, rule.collapse_repeats)
    types = _ranks(ids["type"])[columns["type"]].astype(np.int8)
    return arrange(keys, columns["item"], columns["time"], types, columns.get("event_id"), rule, rank)


def _once(columns: Columns) -> Columns:
    """One row for those that are alike, which stand side by side. (One that shares but its event id stays.)"""
    twins = np.flatnonzero(columns["fate"] == DUPLICATE)
    for column in (column for name, column in columns.items() if name not in ("fate", "copies")):
        twins = twins[column[twins] == column[twins - 1]]
    if not len(twins):
        return columns
    firsts = np.delete(np.arange(len(columns["fate"])), twins)
    copies = np.add.reduceat(columns["copies"], firsts).astype(np.int32)
    return {name: column[firsts] for name, column in columns.items()} | {"copies": copies}


def encode(texts: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.LargeStringArray]:
    """A code for each text, and the texts of the codes, in the order in which they come."""
    if pa.types.is_dictionary(texts.type):
        encoded = texts.unify_dictionaries().combine_chunks()
    else:
        # One chunk: each would come with a dictionary of its own.
        encoded = texts.cast(pa.large_string()).combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary.cast(pa.large_string())


def _ranks(texts: pa.Array) -> NDArray[np.int32]:
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
