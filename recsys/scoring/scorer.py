"""The model as serving runs it: one GRU step, scores, top-K. NumPy only.

Hidden states are float32 ``[batch, layers * units + 1 + memory]``: the layers side by side, then the trail of the last
clicks (:mod:`recsys.trail`). A session starts from zeros. The step is that of Cho et al. 2014 as Hidasi et al. 2016 use
it, the reset applied before the product::

    z  = sigmoid(x Wz + h Uz + bz)          update gate
    r  = sigmoid(x Wr + h Ur + br)          reset gate
    c  = tanh(x Wc + (r * h) Uc + bc)       candidate
    h' = (1 - z) h + z c

A BLAS may sum in another order for another shape, but a user's state and list must not depend on who else is in the
batch. So steps are computed in blocks of a fixed number of rows; and whatever finds the items that may be in a list
(:mod:`recsys.scoring.sieve`), the scores by which they are ranked are computed item by item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.bundle import Weights
from recsys.scoring.byte_table import fastest_table
from recsys.scoring.ranking import rank
from recsys.scoring.sieve import Bounds, Places, Sieve
from recsys.scoring.tables import TableOf
from recsys.sessions import Sessions
from recsys.trail import extend

BLOCK = 32  # rows of a step
TILE = 128  # states whose lists are found together
PAIRS = 1024  # states and items that are multiplied at a time: they fit into a core's second cache
CHUNK_BYTES = 64 << 20  # scores held at a time while predicting
SESSIONS = 4096  # whose states are held at a time, then

Hidden = NDArray[np.float32]
Rows = NDArray[np.int32]

_NOWHERE = Places(np.empty(0, np.int64), np.empty(0, np.int64))


class Scorer:
    """Steps and scores of one model.

    Attributes:
        weights: of the model.
        items: rows of the vocabulary.
        bias: float32 ``[items]``, what each item scores whatever came before.
        width: length of one hidden state, ``layers * units + 1 + memory``.
    """

    def __init__(self, weights: Weights, table: TableOf = fastest_table, name: str = "GRU") -> None:
        """Of these weights; ``table`` is what the items of lists are found by, ``name`` what evaluations call it."""
        self.weights, self._table, self.name = weights, table, name
        self._inputs = weights["embedding" if "embedding" in weights else "gru.0.kernel"]
        self._output, self.bias = weights["output" if "output" in weights else "embedding"], weights["bias"]
        self.items, self._units = self._output.shape
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
        self._followers: NDArray[np.float32] | None = weights.get("followers")
        if self._followers is not None:
            self._surplus, self._following = weights["surplus"], weights["following"]
        self._trail = slice(layers * self._units, None)
        self.width = layers * self._units + len(self._revisit)

    def prepare(self) -> None:
        """Make ready what lists are found by, which the first list would otherwise wait for."""
        _ = self._sieve

    def start(self, batch: int) -> Hidden:
        """``[batch, width]``: states before the first click."""
        return np.zeros((batch, self.width), np.float32)

    def has_begun(self, hidden: Hidden) -> bool:
        """Whether a state ``[width]`` is one after a click."""
        return bool(hidden[self._trail.start])

    def last_items(self, hidden: Hidden) -> Rows:
        """int32 ``[batch]``: the row of the item clicked last before each state ``[batch, width]``; -1 for none."""
        last: Rows = hidden[:, self._trail.start].astype(np.int32) - 1
        return last

    def step(self, hidden: Hidden, rows: Rows) -> Hidden:
        """Advance each state ``[batch, width]`` by one click on the item in ``rows`` ``[batch]``."""
        result = np.empty_like(hidden)
        block_hidden = np.zeros((BLOCK, self.width), np.float32)
        block_input = np.zeros((BLOCK, self._inputs.shape[1]), np.float32)
        for start in range(0, len(hidden), BLOCK):
            count = min(BLOCK, len(hidden) - start)
            block_hidden[:count] = hidden[start : start + count]
            block_input[:count] = self._inputs[rows[start : start + count]]
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

    def scores(self, hidden: Hidden, some: Rows | None = None) -> NDArray[np.float32]:
        """``[batch, items]``: the score of each item as the next one, or of ``some`` alone, which ascend."""
        result: NDArray[np.float32] = self._top(hidden) @ (self._output if some is None else self._output[some]).T
        result += self.bias if some is None else self.bias[some]
        row, item, added = self._added(hidden)
        if some is not None:
            column = np.searchsorted(some, item)
            found = some[np.minimum(column, len(some) - 1)] == item
            row, item, added = row[found], column[found], added[found]
        result[row, item] += added
        return result

    def top_k(
        self, hidden: Hidden, count: int, exclude: Sequence[Rows] | None = None
    ) -> list[tuple[Rows, NDArray[np.float32]]]:
        """For each state the best ``count`` items and their scores, best first, equal scores by row.

        ``exclude`` gives for each state the rows that must not appear.
        """
        lists = [(np.empty(0, np.int32), np.empty(0, np.float32))] * len(hidden)
        waiting = [(rows, np.full(len(rows), np.nan)) for rows in _parts(np.arange(len(hidden)), TILE)]
        while waiting:
            rows, least = waiting.pop()
            gone = _NOWHERE if exclude is None else _flat([exclude[row] for row in rows])
            made = self._lists(hidden[rows], count, gone, least)
            if made is None:  # too many items may be in these lists to look for them together
                waiting += zip(*(_parts(each, len(rows) // 2) for each in (rows, least)), strict=True)
                continue
            found, least = made
            worst = np.array([scores[-1] if len(scores) == count else -np.inf for _, scores in found])
            for row, each in zip(rows, found, strict=True):
                lists[row] = each
            if (wrong := worst < least).any():  # the guess of what the last item is worth; now a bound is known
                waiting.append((rows[wrong], worst[wrong]))
        return lists

    def _lists(
        self, hidden: Hidden, count: int, gone: Places, least: Bounds
    ) -> tuple[list[tuple[Rows, NDArray[np.float32]]], Bounds] | None:
        """The lists of a few states as :meth:`Sieve.search` finds them, and what their last items must be worth."""
        row, item, added = self._added(hidden)
        but = Places(row, item)
        if len(gone.row):
            kept = ~np.isin(row * self.items + item, gone.row * self.items + gone.item)
            but = Places(np.concatenate([row, gone.row]), np.concatenate([item, gone.item]))
            row, item, added = row[kept], item[kept], added[kept]
        search = self._sieve.search(self._top(hidden), count, but, least)
        if search is None:
            return None
        found, least = search
        row, item = np.concatenate([found.row, row]), np.concatenate([found.item, item])
        scores = self._pair_scores(hidden, row, item)
        scores[len(found.row) :] += added
        return rank(row, item, scores, len(hidden), count), least

    def _pair_scores(self, hidden: Hidden, row: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.float32]:
        """``[pairs]``: the score of each item for each state, by the network alone."""
        top, scores = np.ascontiguousarray(self._top(hidden)), self.bias[item]
        items, states = np.empty((2, PAIRS, self._units), np.float32)
        for start in range(0, len(item), PAIRS):
            pairs = slice(start, min(len(item), start + PAIRS))
            size = pairs.stop - start
            self._output.take(item[pairs], axis=0, out=items[:size], mode="clip")  # the mode that needs no copy
            top.take(row[pairs], axis=0, out=states[:size], mode="clip")
            scores[pairs] += np.vecdot(items[:size], states[:size])
        return scores

    def _top(self, hidden: Hidden) -> Hidden:
        """``[batch, units]``: the last layer's part of states."""
        return hidden[:, self._trail.start - self._units : self._trail.start]

    def apart(self, hidden: Hidden) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Items that score otherwise than by the network alone: of which state, which item (once each), the score."""
        row, item, added = self._added(hidden)
        return row, item, self._pair_scores(hidden, row, item) + added

    def _added(self, hidden: Hidden) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """What is added to scores of the network: of which state, to which item (once each), and how much.

        The items of a state's trail are clicked again more or less often, the followers of its last item after it.
        """
        trail = hidden[:, self._trail].astype(np.int32)
        row, place = np.nonzero(trail)
        item, added = trail[row, place], self._revisit[place]
        if self._followers is not None:
            last = trail[:, 0]
            followers = np.where(last[:, None] > 0, self._followers[last - 1], 0)
            surplus = self._following * self._surplus[last - 1]
            again = followers[row] == item[:, None]
            added = added + (again * surplus[row]).sum(axis=1)
            of_trail, where = np.nonzero(again)
            followers[row[of_trail], where] = 0
            others, where = np.nonzero(followers)
            row, item = np.concatenate([row, others]), np.concatenate([item, followers[others, where].astype(np.int32)])
            added = np.concatenate([added, surplus[others, where]])
        return row, item.astype(np.int64) - 1, added

    @cached_property
    def _sieve(self) -> Sieve:
        """Made when the first list is asked for: training asks for scores alone."""
        return Sieve(self._table(self._output, self.bias))

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
        for states in self._states_before(sessions):
            for start in range(0, len(states), rows):
                yield self.scores(states[start : start + rows])

    def states_before(self, sessions: Sessions, which: NDArray[np.bool_]) -> Hidden:
        """``[n, width]``: the states before some events; ``which`` says of all but first ones of sessions, in turn."""
        parts, first = [np.empty((0, self.width), np.float32)], 0
        for states in self._states_before(sessions):
            parts.append(states[which[first : first + len(states)]])
            first += len(states)
        return np.concatenate(parts)

    def _states_before(self, sessions: Sessions) -> Iterator[Hidden]:
        """The states of some sessions at a time."""
        for first in range(0, len(sessions), SESSIONS):
            starts = sessions.starts[first : first + SESSIONS + 1]
            begin, end = int(starts[0]), int(starts[-1])
            part = Sessions(
                sessions.items[begin:end], sessions.times[begin:end], sessions.types[begin:end], starts - begin
            )
            asked = np.ones(part.events, np.bool_)
            asked[part.starts[1:] - 1] = False
            yield self.hidden_states(part)[asked]


def _parts(array: NDArray[Any], size: int) -> list[NDArray[Any]]:
    """An array cut into pieces of this size, and the rest."""
    return [array[start : start + size] for start in range(0, len(array), size)]


def _flat(rows: Sequence[Rows]) -> Places:
    """The places (state, item) of the rows given for each state."""
    lengths = [len(each) for each in rows]
    items = np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64)
    return Places(np.repeat(np.arange(len(rows)), lengths), items)


def _sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logistic function by tanh, which does not overflow."""
    result: NDArray[np.float32] = 0.5 * (1.0 + np.tanh(0.5 * values))
    return result
