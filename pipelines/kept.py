"""The clicks that a dataset was made of, kept in it, so that more can be added.

There is a Parquet file for each shard, and in it a row for each click, whatever became of it, as
:func:`pipelines.shards.in_order` gives them: user, item, type, and session where the log has its own, as texts;
``time``, epoch milliseconds; ``event_id``, a hash, where any has one; ``fate`` and ``copies``. A user's clicks stand
side by side in one file, in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.clicks import count_times
from pipelines.pieces import shard_of
from pipelines.places import Place
from pipelines.shards import TEXTS, encode, in_order
from pipelines.tally import Tally
from recsys.dataset import KEPT
from recsys.errors import DatasetError
from recsys.sessions import NO_ID, SessionRule

_WORDS = pa.dictionary(pa.int32(), pa.string())
_ALL = 1 << 30  # bytes or rows that no shard has: one group of rows, and one dictionary


@dataclass(frozen=True)
class Keeping:
    """Where the clicks of a run are kept (``None``: nowhere), and the files of those to which it adds, by shard.

    Where there are more shards now (``divided``) than there were, several have their clicks in one file.
    """

    into: Place | None = None
    earlier: Mapping[int, Place] = field(default_factory=dict)
    divided: int | None = None

    def arrange(self, shard: int, clicks: pa.Table | None, rule: SessionRule) -> tuple[pa.Table, Tally]:
        """The clicks of a shard in order and with their fates; the tally of those that were there before."""
        tally = Tally()
        if shard in self.earlier:
            kept = read(self.earlier[shard])
            if self.divided:
                kept = _part(kept, shard, self.divided)
            times, copies = kept["time"].to_numpy(), kept["copies"].to_numpy()
            tally = count_times(times if (copies == 1).all() else np.repeat(times, copies))
            clicks = kept if clicks is None else merge(kept, clicks, rule)
        else:
            clicks = in_order(clicks, rule)
        if self.into:
            name, data = f"{shard:05}.parquet", to_parquet(clicks)
            (self.into / name).write(data)
            tally.files[f"{KEPT}/{name}"] = len(clicks), hashlib.sha256(data).hexdigest()
        return clicks, tally


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
            return pq.read_table(file).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{place.address}: cannot read the clicks kept: {error}") from None


def merge(kept: pa.Table, clicks: pa.Table, rule: SessionRule) -> pa.Table:
    """The clicks of a shard with those that come: those of their users are put in order anew, all others stay."""
    codes, users = encode(kept["user"])
    come = pc.unique(clicks["user"].cast(pa.large_string()))
    theirs = pc.is_in(users, value_set=come).to_numpy(zero_copy_only=False)[codes]
    known = kept.filter(pa.array(theirs)).drop_columns("fate")
    again = in_order(pa.concat_tables([_plain(known), _plain(clicks)], promote_options="default"), rule)
    joined = pa.concat_tables([kept.filter(pa.array(~theirs)), again], promote_options="default")
    if "event_id" in joined.column_names:
        place = joined.column_names.index("event_id")
        joined = joined.set_column(place, "event_id", joined["event_id"].fill_null(NO_ID))
    return joined.unify_dictionaries().combine_chunks()


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
