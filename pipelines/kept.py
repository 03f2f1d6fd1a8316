"""The clicks that a dataset was made of, kept in it, so that more can be added.

There is a Parquet file for each shard, and in it a row for each click, whatever became of it, as
:func:`pipelines.shards.in_order` gives them: user, item, type, and session where the log has its own, as texts;
``time``, epoch milliseconds; ``event_id``, a hash, where any has one; ``fate`` and ``copies``. A user's clicks stand
side by side in one file, in order.

Whoever adds to a shard writes another file, with all clicks of the users who come; so of the files of a shard
(``00007.parquet``, ``00007-1.parquet``, ...) the last one that has a user says all of that user, and what earlier ones
say is void. When the files that were added have grown, all is written as one again (see
:attr:`pipelines.append.Earlier.overgrown`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.clicks import count_times
from pipelines.pieces import shard_of
from pipelines.places import Place
from pipelines.shards import TEXTS, encode, in_order
from pipelines.tally import Tally, total
from recsys.dataset import KEPT
from recsys.errors import DatasetError
from recsys.sessions import NO_ID, SessionRule

_WORDS = pa.dictionary(pa.int32(), pa.string())
_ALL = 1 << 30  # bytes or rows that no shard has: one group of rows, and one dictionary


@dataclass(frozen=True)
class Keeping:
    """Where the clicks of a run are kept (``None``: nowhere), and the files of those to which it adds, by shard.

    Those files stay as they are, unless all clicks are to be written ``anew``. Where there are more shards now
    (``divided``) than there were, several have their clicks in the same files.
    """

    into: Place | None = None
    earlier: Mapping[int, Sequence[Place]] = field(default_factory=dict)
    anew: bool = True
    divided: int | None = None

    def arrange(self, shard: int, clicks: pa.Table | None, rule: SessionRule) -> tuple[pa.Table, Tally]:
        """The clicks of a shard in order and with their fates; the tally of those that were there before."""
        files = self.earlier.get(shard, ())
        known = latest([read(place) for place in files])
        if self.divided:
            known = [_part(each, shard, self.divided) for each in known]
        tally = total(map(_times, known))
        come = [] if clicks is None else [add(known, clicks, rule)]
        table = joined(latest([*known, *come]))
        if self.into and (written := [table] if self.anew else come):
            name = f"{shard:05}.parquet" if self.anew or not files else f"{shard:05}-{len(files)}.parquet"
            data = to_parquet(written[0])
            (self.into / name).write(data)
            tally.files[f"{KEPT}/{name}"] = len(written[0]), hashlib.sha256(data).hexdigest()
        return table, tally


def to_parquet(clicks: pa.Table) -> pa.Buffer:
    """A file of what :func:`pipelines.shards.in_order` gave, for :func:`read`."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        clicks,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=[*TEXTS, "fate", "copies"],
        column_encoding={"time": "DELTA_BINARY_PACKED"},
        row_group_size=_ALL,
        dictionary_pagesize_limit=_ALL,
        write_statistics=False,
    )
    return sink.getvalue()


def read(place: Place) -> pa.Table:
    """The clicks of a shard.

    Raises:
        DatasetError: names the file that cannot be read.
    """
    try:
        with place.reader() as file:
            return pq.ParquetFile(file).read().combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{place.address}: cannot read the clicks kept: {error}") from None


def latest(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """The tables, each without the users of whom a later one says all."""
    found = list(tables[-1:])
    said = pa.array([], pa.large_string())
    for table, later in reversed(list(pairwise(tables))):
        said = pa.concat_arrays([said, _users(later)])
        void = _rows_of(table, said)
        found.append(table.take(pa.array(np.flatnonzero(~void))) if void.any() else table)
    return found[::-1]


def add(known: Iterable[pa.Table], clicks: pa.Table, rule: SessionRule) -> pa.Table:
    """The clicks that come, with those that are known of the same users: in order, and with their fates."""
    users = _users(clicks)
    theirs = [table.take(pa.array(np.flatnonzero(_rows_of(table, users)))).drop_columns("fate") for table in known]
    if theirs:
        clicks = pa.concat_tables(map(_plain, [*theirs, clicks]), promote_options="default")
    return in_order(clicks, rule)


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """What the tables say, as one; those of earlier logs may have no event ids."""
    if len(tables) == 1:
        return tables[0]
    table = pa.concat_tables(tables, promote_options="default")
    if "event_id" in table.column_names:
        place = table.column_names.index("event_id")
        table = table.set_column(place, "event_id", table["event_id"].fill_null(NO_ID))
    return table.unify_dictionaries().combine_chunks()


def _users(clicks: pa.Table) -> pa.LargeStringArray:
    """Each user once."""
    return pc.unique(clicks["user"]).cast(pa.large_string())


def _rows_of(table: pa.Table, users: pa.LargeStringArray) -> NDArray[np.bool_]:
    """Which clicks are of one of the users."""
    codes, names = encode(table["user"])
    rows: NDArray[np.bool_] = pc.is_in(names, value_set=users).to_numpy(zero_copy_only=False)[codes]
    return rows


def _times(clicks: pa.Table) -> Tally:
    times, copies = clicks["time"].to_numpy(), clicks["copies"].to_numpy()
    return count_times(times if (copies == 1).all() else np.repeat(times, copies))


def _part(kept: pa.Table, shard: int, shards: int) -> pa.Table:
    """The clicks of the users of one shard of so many, in whose words nothing of the others is left."""
    codes, users = encode(kept["user"])
    mine = shard_of(users, shards) == shard
    plain = _plain(kept.filter(pa.array(mine[codes])))
    return _spelt(plain, lambda texts: texts.dictionary_encode().cast(_WORDS)).combine_chunks()


def _plain(clicks: pa.Table) -> pa.Table:
    """The clicks with texts that are spelt out."""
    return _spelt(clicks, lambda texts: texts.cast(pa.large_string()))


def _spelt(clicks: pa.Table, spelling: Callable[[pa.ChunkedArray], pa.ChunkedArray]) -> pa.Table:
    for place, name in enumerate(clicks.column_names):
        if name in TEXTS:
            clicks = clicks.set_column(place, name, spelling(clicks[name]))
    return clicks
