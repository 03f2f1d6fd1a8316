"""What all visitors click in these minutes more, or less, than the model expects of them.

A model knows what was clicked until it was trained. Where that changes by the hour, as in news, most of what visitors
want an hour later is new to it, and lists of the last half hour's most clicked articles beat any network that was
trained in the afternoon. So the clicks that come are held to the chances that the network gave them. The *rise* of an
item is the logarithm of its clicks in the last half hour over those expected; each time the trend follows, the rise
goes one step of iterative scaling (Darroch and Ratcliff 1972) towards the one under which the two are the same, and
halves in half an hour where nothing speaks for it. The *surplus* of a pair is the logarithm of the clicks on an item
just after another over those expected with the rise, as in :mod:`recsys.model.followers`. Added to biases and
followers, all this costs no more to serve.

How far it holds differs from shop to shop and from hour to hour. So the clicks of the last hour, each given the trend
as it was before, are made likeliest by three numbers: what multiplies the rise (nearly 1 for news, a third for a shop),
what multiplies the surplus, and what multiplies the network's own scores (less than 1 where it is behind its time).

In large catalogues this is done for the items that were clicked of late, or most of all before. For the sum by which a
chance is divided stand, of all others, the items of a session's trail and their followers, and some drawn by lot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.scoring.clicks import Clicks
from recsys.scoring.scorer import CHUNK_BYTES, Scorer
from recsys.scoring.trend import FOLLOWERS, LEAST, MOST, MOST_RISE, Pairs, Trend

RECENT_MS = 1_800_000  # clicks that a trend comes from, and the time in which a rise halves
EVIDENCE_MS = 3_600_000  # clicks that say how far it holds
PRIOR_CLICKS = 1.0  # on an item, or a pair, as they are expected
PRIOR, PRECISION = np.array([1.0, 0.5, 0.5]), 10.0  # of the three numbers, before any click; normal
IN_TIME = 0.9  # of the clicks that come, at least: clocks of others may be ahead
NEWTON_STEPS = 3  # from the clicks of the last minutes to the three numbers
MOST_ITEMS, MOST_CLICKS, MOST_SCORES = 1 << 13, 1 << 15, 1 << 25  # looked at: two seconds, however large the catalogue
BY_LOT = 1 << 11  # of these items, in larger catalogues
NEGLIGIBLE = 0.05  # too little to write down


class _Evidence(NamedTuple):
    """What some clicks say of the three numbers: their log likelihood to the second order.

    ``slope`` ``[3]`` is its gradient at zero, ``curvature`` ``[3, 3]`` the negative of its second derivatives.
    """

    time: int
    slope: NDArray[np.float64]
    curvature: NDArray[np.float64]


class _Items(NamedTuple):
    """Items that chances are computed of: ``rows`` int32 ``[n]``, ascending; for how many each stands.

    ``stands_for`` float32 ``[n]`` is 1 for those that stand for themselves alone.
    """

    rows: NDArray[np.int32]
    stands_for: NDArray[np.float32]

    def own(self, rise: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 ``[n]``: the rises of items that stand for themselves, 0 of others."""
        return np.where(self.stands_for == 1, rise[self.rows], np.float32(0))

    def places(self, of: NDArray[np.int32]) -> NDArray[np.int64]:
        """int64 ``[m]``: where the items ``of [m]``, which are among these, stand."""
        return np.searchsorted(self.rows, of)


class _Chances(NamedTuple):
    """What may be clicked at some of the clicks.

    Attributes:
        part: which clicks.
        scores: float32 ``[n, items]``, by the network.
        odds: float32 ``[n, items]``.
        share: float32 ``[n]``; an item's chance is its odds times the click's share.
        row, pair, place: int64 ``[m]``, pairs that may be: of which click, which pair, and where the follower stands.
        apart: of which click, score and odds of items beside these; int64, float32 and float32 ``[k]``.
    """

    part: slice
    scores: NDArray[np.float32]
    odds: NDArray[np.float32]
    share: NDArray[np.float32]
    row: NDArray[np.int64]
    pair: NDArray[np.int64]
    place: NDArray[np.int64]
    apart: tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]


_NONE = np.empty(0, np.int64), np.empty(0, np.float32)


class LiveTrend:
    """Follows the clicks of all visitors.

    Args:
        scorer: of the model as it was trained.
        trend: where to go on from.
    """

    def __init__(self, scorer: Scorer, trend: Trend | None = None) -> None:
        self._scorer = scorer
        self._rise, self._seen = np.zeros(scorer.items, np.float32), np.zeros(scorer.items, np.int32)
        self._pairs, self._prior, self._time = Pairs.none(), PRIOR, -EVIDENCE_MS
        self._start = trend
        if trend is not None:
            self._rise[trend.rows] = trend.rise
            self._pairs, self._prior = trend.pairs, np.array([trend.network, trend.strength, trend.following])
            self._time = trend.time
        self._numbers = self._prior
        self._evidence: deque[_Evidence] = deque()
        self._window = Clicks.none(scorer.width)
        self._random = np.random.default_rng(0)

    @property
    def most(self) -> int:
        """Clicks that it looks at, at most."""
        return min(MOST_CLICKS, MOST_SCORES // min(len(self._rise), MOST_ITEMS))

    @property
    def trend(self) -> Trend:
        """As it is now."""
        seen = self._seen.copy()
        if self._start is not None:  # what is known of the last half hour, if not from clicks
            seen[self._start.rows] += self._start.clicks
        rows = np.flatnonzero((np.abs(self._rise) > NEGLIGIBLE) | (seen > 0)).astype(np.int32)
        network, strength, following = self._numbers.tolist()
        return Trend(self._time, network, strength, following, rows, self._rise[rows], seen[rows], self._pairs)

    def follow(self, clicks: Clicks) -> Trend:
        """The trend when it knows these clicks, which came after those that it knows."""
        if not len(clicks.targets):
            return self.trend
        clicks = clicks.spread(self.most)
        now = int(np.quantile(clicks.times, IN_TIME, method="lower"))
        before, self._time = self._time, max(self._time, now)
        if self._start is not None and self._start.time <= self._time - RECENT_MS:
            self._start = None
        window = Clicks.together([self._window, clicks])
        self._window = window.keep(window.times > self._time - RECENT_MS).spread(self.most)
        items = self._looked_at(clicks)
        self._learn_numbers(clicks.spread(self.most // NEWTON_STEPS), items)
        self._rise *= np.float32(0.5 ** ((self._time - before) / RECENT_MS))
        self._seen = np.bincount(self._window.targets, minlength=len(self._rise)).astype(np.int32)
        self._count(items)
        return self.trend

    def _count(self, items: _Items) -> None:
        """Hold the clicks of the last half hour to those expected, item by item and pair by pair."""
        pairs, clicks = _clicked_pairs(self._scorer.last_items(self._window.hidden), self._window.targets)
        expected, of_pairs = np.zeros(len(items.rows)), np.zeros(len(clicks))
        for some in self._chances(self._window, items, np.array([self._numbers[0], 1.0, 0.0]), pairs):
            expected += some.share @ some.odds
            of_pairs += np.bincount(some.pair, some.share[some.row] * some.odds[some.row, some.place], len(clicks))
        lag = np.log((self._seen[items.rows] + PRIOR_CLICKS) / (expected + PRIOR_CLICKS)).astype(np.float32)
        self._rise[items.rows] += np.where(items.stands_for == 1, lag, 0)
        np.clip(self._rise, -MOST_RISE, MOST_RISE, out=self._rise)
        of_pairs *= np.exp(lag)[items.places(pairs.follower)]  # as many as are expected with the rise that is now
        surplus = np.log((clicks + PRIOR_CLICKS) / (of_pairs + PRIOR_CLICKS)).astype(np.float32)
        pairs = pairs._replace(surplus=surplus)
        if self._start is not None:
            pairs = pairs.beside(self._start.pairs, self._scorer.items)
        self._pairs = pairs.keep(np.abs(pairs.surplus) > NEGLIGIBLE)

    def _learn_numbers(self, clicks: Clicks, items: _Items) -> None:
        """Make the clicks of the last hour likeliest, given what was known before each."""
        while self._evidence and self._evidence[0].time <= self._time - EVIDENCE_MS:
            self._evidence.popleft()
        for _ in range(NEWTON_STEPS):
            found = self._evidence_of(clicks, items)
            every = [*self._evidence, found]
            total = PRECISION * np.eye(3) + sum(each.curvature for each in every)
            best = np.linalg.solve(total, PRECISION * self._prior + sum(each.slope for each in every))
            self._numbers = np.clip(best, LEAST, MOST)
        self._evidence.append(found)

    def _evidence_of(self, clicks: Clicks, items: _Items) -> _Evidence:
        """What clicks say, as it looks from where the numbers are."""
        targets, rise = items.places(clicks.targets), items.own(self._rise)
        slope, curvature = np.zeros(3), np.zeros((3, 3))
        for some in self._chances(clicks, items, self._numbers, self._pairs):
            size, target, surplus = len(some.share), targets[some.part], self._pairs.surplus[some.pair]
            hit = some.place == target[some.row]
            clicked = np.array(
                [some.scores[np.arange(size), target].sum(), rise[target].sum(), surplus[hit].sum()], np.float64
            )
            of_pair = some.share[some.row] * some.odds[some.row, some.place] * surplus
            raised = (some.odds @ np.stack([rise, rise**2], axis=1)) * some.share[:, None]
            weighed = np.multiply(some.odds, some.scores, out=some.odds)
            row, score, odds = some.apart
            of_score = some.share * weighed.sum(axis=1) + np.bincount(row, some.share[row] * odds * score, size)
            mean = np.stack([of_score, raised[:, 0], np.bincount(some.row, of_pair, size)], dtype=np.float64)
            squares = np.zeros((3, 3))
            squares[0, 0] = some.share @ np.vecdot(weighed, some.scores) + (some.share[row] * odds) @ score**2
            squares[1, 1], squares[2, 2] = raised[:, 1].sum(), of_pair @ surplus
            squares[0, 1] = squares[1, 0] = some.share @ (weighed @ rise)
            squares[0, 2] = squares[2, 0] = of_pair @ some.scores[some.row, some.place]
            squares[1, 2] = squares[2, 1] = of_pair @ rise[some.place]
            slope, curvature = slope + clicked - mean.sum(axis=1), curvature + squares - mean @ mean.T
        return _Evidence(self._time, slope + curvature @ self._numbers, curvature)

    def _looked_at(self, clicks: Clicks) -> _Items:
        """The items that these clicks, and those of late, are held to."""
        items = self._scorer.items
        if items <= MOST_ITEMS:
            return _Items(np.arange(items, dtype=np.int32), np.ones(items, np.float32))
        looked_at = np.zeros(items, np.bool_)
        looked_at[np.argpartition(-self._scorer.bias, MOST_ITEMS - BY_LOT)[: MOST_ITEMS - BY_LOT]] = True
        for rows in (self._window.targets, clicks.targets, self._pairs.follower):
            looked_at[rows] = True
        others = np.flatnonzero(~looked_at)
        stand = self._random.choice(others, min(BY_LOT, len(others)), replace=False)
        stands_for = looked_at.astype(np.float32)
        stands_for[stand] = len(others) / len(stand) if len(stand) else 0
        rows = np.flatnonzero(stands_for).astype(np.int32)
        return _Items(rows, stands_for[rows])

    def _chances(self, clicks: Clicks, items: _Items, numbers: NDArray[np.float64], pairs: Pairs) -> Iterator[_Chances]:
        """What may be clicked, of some clicks at a time, by these numbers."""
        network, strength, following = numbers.astype(np.float32)
        some = items.rows if len(items.rows) < self._scorer.items else None
        added, followers = strength * items.own(self._rise) + np.log(items.stands_for), items.places(pairs.follower)
        size = max(1, CHUNK_BYTES // (16 * len(items.rows)))
        for start in range(0, len(clicks.targets), size):
            part = slice(start, start + size)
            scores = self._scorer.scores(clicks.hidden[part], some)
            raised = network * scores + added
            row, pair = pairs.after(self._scorer.last_items(clicks.hidden[part]))
            place = followers[pair]
            raised[row, place] += following * pairs.surplus[pair]
            apart = self._apart(clicks.hidden[part], items, raised) if some is not None else _NONE
            highest = raised.max(axis=1)
            np.maximum.at(highest, apart[0], network * apart[1])
            raised -= highest[:, None]
            odds, beside = np.exp(raised, out=raised), np.exp(network * apart[1] - highest[apart[0]])
            total = odds.sum(axis=1, dtype=np.float64) + np.bincount(apart[0], beside, len(odds))
            yield _Chances(part, scores, odds, (1 / total).astype(np.float32), row, pair, place, (*apart, beside))

    def _apart(
        self, hidden: NDArray[np.float32], items: _Items, raised: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Items of trails and followers that are not among these: of which state, and their score.

        Where such an item was drawn by lot, it stands for no others there.
        """
        row, item, scores = self._scorer.apart(hidden)
        place = np.minimum(items.places(item.astype(np.int32)), len(items.rows) - 1)
        there = items.rows[place] == item
        raised[row[there], place[there]] -= np.log(items.stands_for[place[there]])
        return row[~there], scores[~there]


def _clicked_pairs(last: NDArray[np.int32], targets: NDArray[np.int32]) -> tuple[Pairs, NDArray[np.int64]]:
    """The pairs that were clicked, of each first item those clicked most, without surplus; and their clicks."""
    (last, follower), clicks = np.unique(np.stack([last, targets]), axis=1, return_counts=True)
    order = np.lexsort((-clicks, last))
    place = np.empty(len(last), np.int64)
    place[order] = np.arange(len(last)) - np.searchsorted(last, last)
    some = place < FOLLOWERS
    return Pairs(last[some], follower[some], np.zeros(np.count_nonzero(some), np.float32)), clicks[some]
