"""Coarse scores by products of bytes, several times as fast as float32 where the processor has instructions for them.

A vector ``w`` is ``scale * q`` with whole numbers ``q`` of -127 to 127, and so is a state ``h = unit * a``. By
Cauchy-Schwarz their product is off by at most::

    |h w - unit scale a q|  <=  |h| |w - scale q|  +  |h - unit a| |scale q|

in lengths that are known: those of the items when the table is made, those of the states when they come. A bias is
spread over columns of its own, where each state has a 1, for the scale is the same for all.

ONNX Runtime multiplies the bytes. It is optional, and used where its sums are seen to be right: on some older
processors they saturate.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.scoring.onnx_model import one_operator
from recsys.scoring.tables import FloatTable, Rounding, States, Table, dealt, lengths

MOST_BIAS_COLUMNS = 28
MOST_UNEVEN = 3  # times the numbers of most items
ZERO = 128  # the byte that stands for a state's 0


class ByteTable:
    """Items as bytes, a session of the runtime a block."""

    def __init__(self, vectors: States, bias: States) -> None:
        self.items, units = vectors.shape
        self.blocks, self.width = dealt(self.items)
        self._rounding = Rounding(vectors, bias)
        largest, most = float(_sizes(vectors).max(initial=0)), float(np.abs(bias).max(initial=0))
        self.scale = max(largest, most / MOST_BIAS_COLUMNS, float(np.finfo(np.float32).tiny)) / 127
        self.ones = max(1, int(np.ceil(most / (127 * self.scale) - 1e-6)))
        self.columns = -(-(units + self.ones) // 4) * 4  # bytes are multiplied four at a time
        self.off = self.longest = 0.0
        self.sessions = []
        for block in range(self.blocks):
            numbers = self._numbers(vectors[block :: self.blocks], bias[block :: self.blocks])
            self.sessions.append(_session(np.ascontiguousarray(numbers.T)))

    def _numbers(self, vectors: States, bias: States) -> NDArray[np.int8]:
        """Int8 ``[width, columns]``; what is lost by them is noted."""
        units = vectors.shape[1]
        exact = np.zeros((self.width, self.columns), np.float32)
        exact[: len(vectors), :units] = vectors
        rest = bias.copy()
        for column in range(units, units + self.ones):
            exact[: len(bias), column] = np.clip(rest, -127 * self.scale, 127 * self.scale)
            rest -= exact[: len(bias), column]
        numbers = np.rint(exact / self.scale)
        lost = np.linalg.norm(exact - self.scale * numbers, axis=1) + np.abs(np.pad(rest, (0, self.width - len(rest))))
        self.off = max(self.off, float(lost.max()))
        self.longest = max(self.longest, float(np.linalg.norm(self.scale * numbers, axis=1).max()))
        return numbers.astype(np.int8)

    def ask(self, states: States) -> ByteQuery:
        """Make ready a batch of states ``[batch, units]``."""
        return ByteQuery(self, states, self._rounding.of(states))


class ByteQuery:
    """Asks a :class:`ByteTable`."""

    def __init__(self, table: ByteTable, states: States, error: NDArray[np.float64]) -> None:
        batch, units = states.shape
        exact = np.zeros((batch, table.columns), np.float32)
        exact[:, :units], exact[:, units : units + table.ones] = states, 1
        unit = np.abs(exact).max(axis=1, keepdims=True) / 127
        numbers = np.rint(exact / unit)
        lost = lengths(exact - unit * numbers)
        self.unit = unit[:, 0].astype(np.float64) * table.scale
        self.error = error + 1.0001 * (lengths(exact) * table.off + lost * table.longest)
        self._sessions = table.sessions
        self._states = (numbers + ZERO).astype(np.uint8)
        self._scores = np.empty((batch, table.width), np.int32)

    def scores(self, block: int) -> NDArray[np.int32]:
        """Int32 ``[batch, width]``; each block's overwrite the last one's."""
        binding = self._sessions[block].io_binding()
        binding.bind_cpu_input("states", self._states)
        binding.bind_output("scores", "cpu", 0, np.int32, self._scores.shape, self._scores.ctypes.data)
        self._sessions[block].run_with_iobinding(binding)
        return self._scores


def fastest_table(vectors: States, bias: States) -> Table:
    """Bytes where the processor multiplies them, unless a few huge numbers would leave too few for all others."""
    largest = _sizes(vectors)
    even = largest.max(initial=0) <= MOST_UNEVEN * np.quantile(largest, 0.99)
    return ByteTable(vectors, bias) if even and multiplies_bytes() else FloatTable(vectors, bias)


@cache
def multiplies_bytes() -> bool:
    """Whether the runtime is installed, and its largest sums are right on this processor."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    states = np.full((2, 8), 255, np.uint8)
    items = np.where(np.arange(32) % 2, 127, -127).astype(np.int8) * np.ones((8, 1), np.int8)
    [found] = _session(items).run(None, {"states": states})
    return np.array_equal(found, (states.astype(np.int32) - ZERO) @ items.astype(np.int32))


def _session(items: NDArray[np.int8]) -> Any:
    """Multiplies states by these items, ``[columns, items]``, on one core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # all it needs is its result's memory, which is ours
    columns, width = items.shape
    model = one_operator(
        "MatMulInteger",
        {"items": items, "zero": np.array(ZERO, np.uint8)},
        ("states", np.uint8, ("batch", columns)),
        ("scores", np.int32, ("batch", width)),
    )
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _sizes(vectors: States) -> States:
    """``[items]``: each one's largest number, without its sign."""
    found: States = np.maximum(vectors.max(axis=1, initial=0), -vectors.min(axis=1, initial=0))
    return found
