"""The model as serving runs it: one GRU step, scores, top-K. NumPy only.

Hidden states are float32 ``[batch, layers * units + 1 + memory]``: the layers side by side, then the trail of the last
clicks (:mod:`recsys.trail`). A session starts from zeros. The step is that of Cho et al. 2014 as Hidasi et al. 2016 use
it, the reset applied before the product::

    z  = sigmoid(x Wz + h Uz + bz)          update gate
    r  = sigmoid(x Wr + h Ur + br)          reset gate
    c  = tanh(x Wc + (r * h) Uc + bc)       candidate
    h' = (1 - z) h + z c

A BLAS may sum in another order for another shape, but a user's state and list must not depend on who else is in the
batch. So steps are computed in blocks of a fixed number of rows, and scores in blocks of those numbers of rows for
which this machine's BLAS is seen to give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.bundle import Weights
from recsys.ranking import Ranking
from recsys.sessions import Sessions
from recsys.trail import extend

BLOCK = 32  # rows of a step
HEIGHTS = (2, 4, 8, 16, 32, 64, 128)  # rows of a product with the items: 128 cost as much as 20 alone
ITEM_BLOCK = 1 << 15  # items scored at a time
SLICED, SLICE = 8, 1024  # up to this height, so many items at a time: OpenBLAS multiplies them without copying them
CHUNK_BYTES = 64 << 20  # scores held at a time while predicting

Hidden = NDArray[np.float32]
Rows = NDArray[np.int32]


class Scorer:
    """Steps and scores of one model.

    Attributes:
        items: rows of the vocabulary.
        width: length of one hidden state, ``layers * units + 1 + memory``.
    """

    name = "GRU"

    def __init__(self, weights: Weights) -> None:
        self._inputs = weights["embedding" if "embedding" in weights else "gru.0.kernel"]
        output = weights["output" if "output" in weights else "embedding"]
        self.items, self._units = output.shape
        self._output = np.empty((self._units + 1, self.items), np.float32)
        self._output[:-1], self._output[-1] = output.T, weights["bias"]  # a state's last number is 1
        layers = sum(name.endswith(".kernel") for name in weights)
        kernels = [weights[f"gru.{layer}.kernel"] for layer in range(layers)]
        self._layers = [
            # A row of a kernel that is the table of inputs is the product already.
            (
                None if kernel is self._inputs else kernel,
                weights[f"gru.{layer}.recurrent"],
                weights[f"gru.{layer}.bias"],
            )
            for layer, kernel in enumerate(kernels)
        ]
        self._revisit = weights["revisit"]
        self._trail = slice(layers * self._units, None)
        self.width = layers * self._units + len(self._revisit)
        self._heights = self._equal_heights()

    def start(self, batch: int) -> Hidden:
        """``[batch, width]``: states before the first click."""
        return np.zeros((batch, self.width), np.float32)

    def step(self, hidden: Hidden, rows: Rows) -> Hidden:
        """Advance each state ``[batch, width]`` by one click on the item in ``rows`` ``[batch]``."""
        result = np.empty_like(hidden)
        block_hidden = np.zeros((BLOCK, self.width), np.float32)
        block_input = np.zeros((BLOCK, self._inputs.shape[1]), np.float32)
        for start in range(0, len(hidden), BLOCK):
            count = min(BLOCK, len(hidden) - start)
            block_hidden[:count] = hidden[start : start + count]
            np.take(self._inputs, rows[start : start + count], axis=0, out=block_input[:count])
            result[start : start + count] = self._step_block(block_hidden, block_input)[:count]
        result[:, self._trail] = extend(hidden[:, self._trail], rows)
        return result

    def _step_block(self, hidden: Hidden, inputs: Hidden) -> Hidden:
        units = self._units
        result = np.empty_like(hidden)
        for layer, (kernel, recurrent, bias) in enumerate(self._layers):
            before = hidden[:, layer * units : (layer + 1) * units]
            projected: Hidden = (inputs if kernel is None else inputs @ kernel) + bias
            gates = _sigmoid(projected[:, : 2 * units] + before @ recurrent[:, : 2 * units])
            update, reset = gates[:, :units], gates[:, units:]
            candidate: Hidden = np.tanh(projected[:, 2 * units :] + (reset * before) @ recurrent[:, 2 * units :])
            after: Hidden = before + update * (candidate - before)
            result[:, layer * units : (layer + 1) * units] = inputs = after
        return result

    def advance(self, hidden: Hidden, clicks: Sequence[Sequence[int]]) -> Hidden:
        """Advance each state ``[batch, width]`` by all the clicks on the rows given for it, in turn."""
        lengths = np.array([len(rows) for rows in clicks], np.int64)
        order = np.argsort(-lengths, kind="stable")
        hidden = hidden.copy()
        for position in range(int(lengths.max(initial=0))):
            alive = order[: np.count_nonzero(lengths > position)]
            hidden[alive] = self.step(hidden[alive], np.array([clicks[i][position] for i in alive], np.int32))
        return hidden

    def scores(self, hidden: Hidden) -> NDArray[np.float32]:
        """``[batch, items]``: the score of each item as the next one."""
        result = np.empty((len(hidden), self.items), np.float32)
        for rows in self._tiles(len(hidden)):
            for first, scores in self._score_blocks(hidden[rows]):
                result[rows, first : first + scores.shape[1]] = scores
        return result

    def top_k(
        self, hidden: Hidden, count: int, exclude: Sequence[Rows] | None = None
    ) -> list[tuple[Rows, NDArray[np.float32]]]:
        """For each state the best ``count`` items and their scores, best first, equal scores by row.

        ``exclude`` gives for each state the rows that must not appear.
        """
        found = []
        for rows in self._tiles(len(hidden)):
            hidden_rows = hidden[rows]
            ranking = Ranking(len(hidden_rows), min(count, self.items))
            places = None if exclude is None else _flat(exclude[rows])
            for first, scores in self._score_blocks(hidden_rows):
                if places is not None:
                    row, column, _ = _within(*places, first, scores.shape[1])
                    scores[row, column] = -np.inf
                ranking.add(scores, first)
            found += ranking.lists()
        return found

    def _tiles(self, batch: int) -> Iterator[slice]:
        """The rows of a batch that are scored together: as many as a product may have, and the rest."""
        for start in range(0, batch, self._heights[-1]):
            yield slice(start, min(batch, start + self._heights[-1]))

    def _score_blocks(self, hidden: Hidden) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """For each block of items its first row and the scores ``[batch, block]``; each block overwrites the last."""
        top = hidden[:, self._trail.start - self._units : self._trail.start]
        height = next(height for height in self._heights if height >= len(top))
        padded = np.ones((height, self._units + 1), np.float32)
        padded[: len(top), :-1] = top
        trail = hidden[:, self._trail].astype(np.int64)
        row, place = np.nonzero(trail)
        item = trail[row, place] - 1
        for first in range(0, self.items, ITEM_BLOCK):
            scores = self._product(padded, first)[: len(top)]
            rows, columns, which = _within(row, item, first, scores.shape[1])
            scores[rows, columns] += self._revisit[place[which]]
            yield first, scores

    def _product(self, padded: Hidden, first: int) -> NDArray[np.float32]:
        """``[height, block]``: states, each with a 1 behind it, times the block of items that begins at ``first``."""
        items = self._output[:, first : first + ITEM_BLOCK]
        height, width = len(padded), items.shape[1]
        product = np.empty((height, width), np.float32)
        step = SLICE if height <= SLICED else width
        for start in range(0, width, step):
            np.matmul(padded, items[:, start : start + step], out=product[:, start : start + step])
        return product

    def _equal_heights(self) -> list[int]:
        """Of :data:`HEIGHTS` those whose products here are the same, bit by bit, as of the lowest.

        In which order a BLAS sums does not depend on the numbers, so random ones show it.
        """
        states = np.random.default_rng(0).normal(size=(HEIGHTS[-1], self._units + 1)).astype(np.float32)
        equal = list(HEIGHTS)
        for first in {0, (self.items - 1) // ITEM_BLOCK * ITEM_BLOCK}:  # the last block may have another width
            products = {
                height: np.concatenate([self._product(part, first) for part in np.split(states, len(states) // height)])
                for height in equal
            }
            equal = [height for height in equal if np.array_equal(products[height], products[HEIGHTS[0]])]
        return equal

    def hidden_states(self, sessions: Sessions) -> Hidden:
        """``[events, width]``: the state after each event of each session."""
        order = np.argsort(-sessions.lengths, kind="stable")
        lengths, starts = sessions.lengths[order], sessions.starts[:-1][order]
        states = np.empty((sessions.events, self.width), np.float32)
        hidden = self.start(len(sessions))
        for position in range(int(lengths.max(initial=0))):
            alive = int(np.count_nonzero(lengths > position))
            events = starts[:alive] + position
            hidden = self.step(hidden[:alive], sessions.items[events])
            states[events] = hidden
        return states

    def predict(self, sessions: Sessions) -> Iterator[NDArray[np.float32]]:
        """For each event but the first of its session, in order, the scores of all items before it; in chunks."""
        rows = max(1, CHUNK_BYTES // (4 * self.items))
        step = 4096  # sessions whose states are held at a time
        for first in range(0, len(sessions), step):
            starts = sessions.starts[first : first + step + 1]
            begin, end = int(starts[0]), int(starts[-1])
            part = Sessions(
                sessions.items[begin:end], sessions.times[begin:end], sessions.types[begin:end], starts - begin
            )
            asked = np.ones(part.events, np.bool_)
            asked[part.starts[1:] - 1] = False
            states = self.hidden_states(part)[asked]
            for start in range(0, len(states), rows):
                yield self.scores(states[start : start + rows])


def _flat(rows: Sequence[Rows]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places (state, item) of the rows given for each state."""
    lengths = [len(each) for each in rows]
    return np.repeat(np.arange(len(rows)), lengths), np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64)


def _within(
    row: NDArray[np.int64], item: NDArray[np.int64], first: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The places (row, item) in a block of items, as rows and columns of it, and which of all they are."""
    which = np.flatnonzero((item >= first) & (item < first + width))
    return row[which], item[which] - first, which


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logistic function by tanh, which does not overflow."""
    result: NDArray[np.float32] = 0.5 * (1.0 + np.tanh(0.5 * values))
    return result
