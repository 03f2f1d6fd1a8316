"""What follows an item more often, or less often, than the network says.

A network generalises: dropout, and a state of a hundred numbers, keep it from remembering which two items go together
just so. Counts remember nothing else. So for each item the log's clicks on its *followers*, the items clicked next, are
compared with how many of them the network expected, and the logarithm of their ratio, the *surplus*, is added to the
follower's score when that item was the last one clicked: a memory beside what is generalised (Cheng et al. 2016, "Wide
& deep learning", in the form of a residual). Of the followers clicked most, those whose surplus is worth most are kept.
How far surpluses hold in later sessions is fitted with the trend (:mod:`recsys.model.strengths`): nearly wholly in a
shop, and about a third of the way where what is clicked changes from hour to hour.

The sum over all items by which a chance is divided is estimated, in large catalogues, from a sample of items by
importance (Bengio and Senécal 2008), in which the followers and the trail stand surely.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys.model.asked import CHUNK_BYTES, Asked, newest
from recsys.model.network import FOLLOWERS, FOLLOWING, REVISIT, SURPLUS, Weights, output_table
from recsys.sessions import Sessions

PREDICTIONS = 1 << 18  # that followers are counted in, at most: the newest; some seconds
SAMPLE = 4096  # items that stand for a larger catalogue
LOOKED_AT = 2  # times as many followers of an item as are kept: those clicked most
PRIOR_CLICKS = 1.0  # as the network expects them, or as was known before
MOST = 4.0  # surplus: training after training, a follower that is clicked no more would lose score without end


class Followers(NamedTuple):
    """Some followers of each item.

    Attributes:
        items: float32 ``[items, places]``, a follower's row + 1, as in a trail, and 0 for none.
        surplus: float32 ``[items, places]``, log of its clicks over those expected; 0 for none.
    """

    items: NDArray[np.float32]
    surplus: NDArray[np.float32]

    @classmethod
    def none(cls, items: int, places: int) -> Self:
        """No item has any."""
        return cls(np.zeros((items, places), np.float32), np.zeros((items, places), np.float32))

    @classmethod
    def of(cls, weights: Mapping[str, NDArray[np.float32]], places: int) -> Self:
        """Those that weights hold, the first ``places`` of each item."""
        found = cls.none(len(weights["bias"]), places)
        if FOLLOWERS in weights:
            some = slice(min(places, weights[FOLLOWERS].shape[1]))
            found.items[:, some], found.surplus[:, some] = weights[FOLLOWERS][:, some], weights[SURPLUS][:, some]
        return found

    def after(self, last: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """The followers of the items ``last [n]``: places in ``last``, rows of the followers, and their surplus."""
        items = self.items[last]
        row, place = np.nonzero(items)
        return row, items[row, place].astype(np.int64) - 1, self.surplus[last[row], place]


def with_followers(weights: Weights, followers: Followers, strength: float) -> Weights:
    """The weights as they serve: with followers, if their surplus counts for anything."""
    if not strength:
        return without_followers(weights)
    found = {FOLLOWERS: followers.items, SURPLUS: followers.surplus, FOLLOWING: np.array([strength], np.float32)}
    return {**weights, **found}


def without_followers(weights: Mapping[str, NDArray[np.float32]]) -> Weights:
    """The weights as they learn."""
    return {name: value for name, value in weights.items() if name not in (FOLLOWERS, SURPLUS, FOLLOWING)}


def fit_followers(weights: Mapping[str, NDArray[np.float32]], sessions: Sessions, before: Followers) -> Followers:
    """Followers of each item in the newest of ``sessions``; as many as ``before`` has, what was known of them.

    Args:
        weights: of a network that has learnt, and its revisit numbers.
        sessions: what it has learnt from.
        before: where clicks are few, their surplus counts.
    """
    asked = Asked.of(weights, newest(sessions, PREDICTIONS))
    last, of_last = np.unique(asked.trail[:, 0] - 1, return_inverse=True)
    known = Followers(before.items[last], before.surplus[last])
    items, clicks, prior = _counted(of_last, asked.targets, known, len(weights["bias"]))
    expected = np.zeros(items.shape)
    for part, chances in _chances(weights, asked, items[of_last]):
        np.add.at(expected, of_last[part], chances)
    surplus = np.log((clicks + PRIOR_CLICKS * np.exp(prior)) / (expected + PRIOR_CLICKS)) * (items > 0)
    surplus = np.clip(surplus, -MOST, MOST)
    worth = np.abs(surplus) * np.sqrt(clicks + PRIOR_CLICKS)
    best = np.argsort(-worth, axis=1, kind="stable")[:, : before.items.shape[1]]
    found = Followers(before.items.copy(), before.surplus.copy())
    found.items[last] = np.take_along_axis(items, best, 1)
    found.surplus[last] = np.take_along_axis(surplus, best, 1)
    return found


def _counted(
    of_last: NDArray[np.int64], targets: NDArray[np.int32], known: Followers, items: int
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    """Followers (row + 1), their clicks and the surplus known of them; ``[last items, places looked at]`` each.

    Those clicked most come first, then what is known of others.
    """
    pairs, clicks = np.unique(of_last * items + targets, return_counts=True)
    owner, item = np.divmod(pairs, items)
    order = np.lexsort((-clicks, owner))
    owner, item, clicks = owner[order], item[order], clicks[order]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    some = place < LOOKED_AT * known.items.shape[1]
    owner, item, clicks, place = owner[some], item[some], clicks[some], place[some]
    counted = int(place.max(initial=-1)) + 1
    shape = len(known.items), counted + known.items.shape[1]
    rows, counts, prior = np.zeros(shape, np.int32), np.zeros(shape), np.zeros(shape)
    rows[owner, place], counts[owner, place] = item + 1, clicks
    for at in np.flatnonzero(known.items.any(axis=0)):
        follower, surplus = known.items[:, at, None], known.surplus[:, at, None]
        same = (rows[:, :counted] == follower) & (follower > 0)
        prior[:, :counted] += same * surplus
        rows[:, counted + at] = np.where(same.any(axis=1), 0, follower[:, 0])
        prior[:, counted + at] = surplus[:, 0]
    return rows, counts, prior


def _chances(
    weights: Mapping[str, NDArray[np.float32]], asked: Asked, followers: NDArray[np.int32]
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Which predictions, and the chance that each of their ``followers [n, places]`` is clicked next; 0 for none."""
    table, bias, revisit = weights[output_table(weights)], weights["bias"], weights[REVISIT]
    sample = _Sample(np.bincount(asked.targets, minlength=len(bias)))
    width = SAMPLE + 2 * (followers.shape[1] + len(revisit)) * table.shape[1]
    for start in range(0, len(asked), size := max(1, CHUNK_BYTES // (4 * width))):
        part = slice(start, start + size)
        found, trail, states = followers[part], asked.trail[part], asked.states[part]
        revisited = np.zeros((len(found), found.shape[1] + trail.shape[1]), np.float32)
        revisited[:, found.shape[1] :] = revisit
        own = np.concatenate([found, trail], axis=1)
        for back, number in enumerate(revisit):  # an item of the trail that is a follower, too, stands once
            same = (found == trail[:, back, None]) & (found > 0)
            revisited[:, : found.shape[1]] += same * number
            own[:, found.shape[1] + back] *= ~same.any(axis=1)
        row, place = np.nonzero(own)
        alone = np.full(own.shape, -np.inf)
        item = own[row, place] - 1
        alone[row, place] = np.vecdot(states[row], table[item]) + bias[item]
        drawn, weight, stands = sample.draw()
        others = states @ table[drawn].T + (bias[drawn] + np.log(weight))
        highest = np.maximum(others.max(axis=1), (alone + revisited).max(axis=1))[:, None]
        shares = np.exp(alone + revisited - highest)
        rest = np.exp(others - highest.astype(np.float32)).sum(axis=1, dtype=np.float64)
        rest -= (np.exp(alone - highest) * stands[own - 1]).sum(axis=1)
        yield part, (shares / (shares.sum(axis=1) + np.maximum(rest, 0.0))[:, None])[:, : found.shape[1]]


class _Sample:
    """Items that stand for all of a catalogue; in a small one, all of it.

    Args:
        clicks: int ``[items]``; an item is drawn by their square root.
    """

    def __init__(self, clicks: NDArray[np.int64]) -> None:
        chance = np.sqrt(clicks + 1.0)
        self._chance: NDArray[np.float64] = chance / chance.sum()
        self._random = np.random.default_rng(0)

    def draw(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]:
        """Their rows, what each weighs, and for every item what it weighs among them in all."""
        items = len(self._chance)
        if items <= SAMPLE:
            return np.arange(items), np.ones(items, np.float32), np.ones(items)
        sample = self._random.choice(items, SAMPLE, p=self._chance)
        weight = (1 / (SAMPLE * self._chance[sample])).astype(np.float32)
        stands = np.zeros(items)
        np.add.at(stands, sample, weight)
        return sample, weight, stands
