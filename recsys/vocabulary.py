"""Which row an item has.

Rows are assigned in the byte order of the ids, so a row comparison is an id comparison: batch and stream break ties of
time the same way without looking at a string.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from recsys.errors import InputError

UNKNOWN = -1


@dataclass(frozen=True)
class Vocabulary:
    """Item ids in row order, with the number of training events of each.

    Attributes:
        ids: item ids, strictly ascending by UTF-8 bytes.
        counts: int64 ``[items]``, events of each item before the test split.
    """

    ids: Sequence[str]
    counts: NDArray[np.int64]
    _rows: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.counts):
            raise InputError(f"vocabulary has {len(self.ids)} ids but {len(self.counts)} counts")
        object.__setattr__(self, "_rows", {item: row for row, item in enumerate(self.ids)})
        if len(self._rows) != len(self.ids):
            raise InputError("vocabulary names an item twice")
        # Code point order is UTF-8 byte order.
        if any(a > b for a, b in zip(self.ids, self.ids[1:], strict=False)):
            raise InputError("vocabulary ids are not in byte order")

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, item_id: str) -> int:
        """The item's row, or :data:`UNKNOWN`."""
        return self._rows.get(item_id, UNKNOWN)

    def rows(self, item_ids: Sequence[str]) -> NDArray[np.int32]:
        """Rows of many items, :data:`UNKNOWN` where an id is not in the vocabulary."""
        return np.fromiter((self._rows.get(item, UNKNOWN) for item in item_ids), np.int32, len(item_ids))

    def rows_from(self, older: Vocabulary) -> NDArray[np.int32]:
        """``[len(older)]``: this vocabulary's row for each row of ``older``."""
        return self.rows(older.ids)

    def save(self, path: Path) -> None:
        """Write as JSON, readable without any data library."""
        counts = np.ascontiguousarray(self.counts)
        path.write_bytes(orjson.dumps({"ids": list(self.ids), "counts": counts}, option=orjson.OPT_SERIALIZE_NUMPY))

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is not a vocabulary.
        """
        try:
            value = orjson.loads(path.read_bytes())
            return cls(value["ids"], np.asarray(value["counts"], np.int64))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a vocabulary: {error}") from None


def below_one(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Counts ``[items]`` in the same order, but all below one: they tell apart what is equal in whole numbers."""
    shares: NDArray[np.float32] = (counts / (counts.max(initial=0) + 1)).astype(np.float32)
    return shares
