"""A trend: what the scores of items get beside what the model says, for some minutes."""

from __future__ import annotations

import struct
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys.bundle import Weights
from recsys.errors import InputError

FOLLOWERS = 16  # that an item has, unless the model has more of them
LEAST, MOST = np.array([0.3, 0.0, 0.0]), np.array([1.5, 1.0, 1.0])  # that the three numbers may be
MOST_RISE = 20.0  # and a rise, or a surplus, either way

_HEAD = struct.Struct("<BqdddII")
_FORM = 0xC0  # how a packed trend begins


class Pairs(NamedTuple):
    """Pairs of an item and one that follows it, by the first and then by the second.

    Attributes:
        last: int32 ``[m]``, rows of items.
        follower: int32 ``[m]``, rows of those clicked after them.
        surplus: float32 ``[m]``, log of such clicks over those expected.
    """

    last: NDArray[np.int32]
    follower: NDArray[np.int32]
    surplus: NDArray[np.float32]

    @classmethod
    def none(cls) -> Self:
        """No pairs."""
        return cls(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))

    def keep(self, which: NDArray[np.bool_]) -> Pairs:
        """Some of them."""
        return Pairs(self.last[which], self.follower[which], self.surplus[which])

    def beside(self, others: Pairs, items: int) -> Pairs:
        """These, and of ``others`` those that are not among them."""
        keys = others.last.astype(np.int64) * items + others.follower
        new = others.keep(~np.isin(keys, self.last.astype(np.int64) * items + self.follower))
        return _sum(self, new, items)

    def after(self, last: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The pairs of the items ``last [n]``: places in ``last``, and which pairs."""
        begin, end = np.searchsorted(self.last, last), np.searchsorted(self.last, last, side="right")
        place = np.repeat(np.arange(len(last)), end - begin)
        first = np.cumsum(end - begin) - (end - begin)
        return place, np.arange(len(place)) - first[place] + begin[place]


class Trend(NamedTuple):
    """What clicks until ``time`` (epoch milliseconds) say of items and of pairs of them, and how far that holds.

    Attributes:
        time: of the newest click that it knows, but for a few whose clocks may be ahead.
        network: what multiplies the network's own scores.
        strength: what multiplies the rise.
        following: what multiplies the surplus of pairs.
        rows: int32 ``[n]``, ascending, of the items that were clicked of late, or whose rise is not negligible.
        rise: float32 ``[n]``.
        clicks: int32 ``[n]``, of the last half hour, as far as they were looked at.
        pairs: those that were clicked of late.
    """

    time: int
    network: float
    strength: float
    following: float
    rows: NDArray[np.int32]
    rise: NDArray[np.float32]
    clicks: NDArray[np.int32]
    pairs: Pairs

    def on(self, weights: Weights) -> Weights:
        """The weights with the trend: biases and followers are other ones, scores of the network stay as they are."""
        bias = weights["bias"].copy()
        bias[self.rows] += self.raised
        if not len(self.pairs.last):
            return {**weights, "bias": bias}
        pairs, places = self._followers(weights), _places(weights)
        followers, surplus = np.zeros((2, len(bias), places), np.float32)
        if "followers" in weights:
            known = slice(weights["followers"].shape[1])
            followers[:, known], surplus[:, known] = weights["followers"], weights["following"] * weights["surplus"]
        place = np.arange(len(pairs.last)) - np.searchsorted(pairs.last, pairs.last)
        followers[pairs.last] = surplus[pairs.last] = 0
        followers[pairs.last, place], surplus[pairs.last, place] = pairs.follower + 1, pairs.surplus
        tables = {"followers": followers, "surplus": surplus, "following": np.ones(1, np.float32)}
        return {**weights, "bias": bias, **tables}

    @property
    def raised(self) -> NDArray[np.float32]:
        """float32 ``[n]``: what the scores of ``rows`` get."""
        return np.float32(self.strength / self.network) * self.rise

    def changes(self, weights: Weights) -> Pairs:
        """What the scores of followers get, or lose: the difference that the trend makes."""
        before, after = _of(weights, np.unique(self.pairs.last)), self._followers(weights)
        return _sum(before._replace(surplus=-before.surplus), after, len(weights["bias"]))

    def _followers(self, weights: Weights) -> Pairs:
        """Those of the model and of the trend together, of the items that have any here; if too many, the foremost."""
        pairs = self.pairs._replace(surplus=np.float32(self.following / self.network) * self.pairs.surplus)
        both = _sum(_of(weights, np.unique(pairs.last)), pairs, len(weights["bias"]))
        order = np.lexsort((-np.abs(both.surplus), both.last))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order)) - np.searchsorted(both.last, both.last)
        return both.keep(place < _places(weights))

    def pack(self) -> bytes:
        """As bytes: 41, 12 an item and 12 a pair."""
        numbers = self.network, self.strength, self.following
        head = _HEAD.pack(_FORM, self.time, *numbers, len(self.rows), len(self.pairs.last))
        columns = (self.rows, "<i4"), (self.rise, "<f4"), (self.clicks, "<i4")
        pairs = zip(self.pairs, ("<i4", "<i4", "<f4"), strict=True)
        return head + b"".join(column.astype(kind).tobytes() for column, kind in (*columns, *pairs))

    @classmethod
    def unpack(cls, data: bytes, items: int) -> Trend:
        """Read what :meth:`pack` wrote, for a model of so many items.

        Raises:
            InputError: the bytes are no trend of such a model.
        """
        try:
            form, time, network, strength, following, count, of_pairs = _HEAD.unpack_from(data)
            whole, offset = [], _HEAD.size
            for length in (count, count, count, of_pairs, of_pairs, of_pairs):
                whole.append(np.frombuffer(data, "<i4", length, offset).astype(np.int32))
                offset += 4 * length
        except (struct.error, ValueError) as error:
            raise InputError(f"not a trend ({len(data)} bytes): {error}") from None
        rows, rise, clicks, last, follower, surplus = whole
        pairs = Pairs(last, follower, surplus.view(np.float32))
        trend = cls(time, network, strength, following, rows, rise.view(np.float32), clicks, pairs)
        if form != _FORM or len(data) != offset or not trend._can_be(items):
            raise InputError(f"not a trend ({len(data)} bytes) of a model of {items} items")
        return trend

    def _can_be(self, items: int) -> bool:
        """Whether its numbers are some that a trend of so many items may have."""
        numbers, key = np.array([self.network, self.strength, self.following]), self.pairs.last.astype(np.int64) * items
        rows = np.concatenate([self.rows, self.pairs.last, self.pairs.follower])
        in_bounds = ((numbers >= LEAST) & (numbers <= MOST)).all() and ((rows >= 0) & (rows < items)).all()
        small = (np.abs(np.concatenate([self.rise, self.pairs.surplus])) <= MOST_RISE).all()
        ascend = (np.diff(self.rows) > 0).all() and (np.diff(key + self.pairs.follower) > 0).all()
        return bool(in_bounds and small and ascend and (self.clicks >= 0).all())


def _places(weights: Weights) -> int:
    """How many followers an item may have."""
    return max(FOLLOWERS, weights["followers"].shape[1] if "followers" in weights else 0)


def _of(weights: Weights, last: NDArray[np.int32]) -> Pairs:
    """The followers that weights have of the items ``last``, which ascend, as they count; a table's order is kept."""
    if "followers" not in weights:
        return Pairs.none()
    followers = weights["followers"][last]
    owner, place = np.nonzero(followers)
    surplus = weights["following"] * weights["surplus"][last[owner], place]
    return Pairs(last[owner], followers[owner, place].astype(np.int32) - 1, surplus)


def _sum(some: Pairs, others: Pairs, items: int) -> Pairs:
    """All pairs of both; where both have one, their surplus together."""
    last, follower, surplus = (np.concatenate(columns) for columns in zip(some, others, strict=True))
    keys, pair = np.unique(last.astype(np.int64) * items + follower, return_inverse=True)
    first, second = np.divmod(keys, items)
    return Pairs(first.astype(np.int32), second.astype(np.int32), np.bincount(pair, surplus).astype(np.float32))
