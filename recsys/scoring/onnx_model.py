"""An ONNX model of one operator, as the bytes that a runtime loads.

ONNX is protocol buffers (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3), and these few messages are written
here rather than by the ``onnx`` package, which is larger than all that serving needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

IR_VERSION, OPERATOR_SET = 8, 17
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.uint8): 2, np.dtype(np.int8): 3, np.dtype(np.int32): 6}


def one_operator(
    operator: str,
    constants: Mapping[str, NDArray[Any]],
    given: tuple[str, type[np.generic], tuple[int | str, ...]],
    result: tuple[str, type[np.generic], tuple[int | str, ...]],
) -> bytes:
    """A model of ``operator`` on what is ``given`` (name, type, shape), then the constants in their order.

    A dimension that has a name instead of a number may be any.
    """
    name, *_ = given
    node = b"".join(_field(1, each) for each in (name, *constants)) + _field(2, result[0]) + _field(4, operator)
    graph = _field(1, node) + _field(2, operator)
    graph += b"".join(_field(5, _tensor(*each)) for each in constants.items())
    graph += _field(11, _value(*given)) + _field(12, _value(*result))
    return _field(1, IR_VERSION) + _field(7, graph) + _field(8, _field(1, "") + _field(2, OPERATOR_SET))


def _tensor(name: str, values: NDArray[Any]) -> bytes:
    shape = b"".join(_field(1, size) for size in values.shape)
    return shape + _field(2, _TYPES[values.dtype]) + _field(8, name) + _field(9, values.tobytes())


def _value(name: str, type_: type[np.generic], shape: tuple[int | str, ...]) -> bytes:
    dimensions = b"".join(_field(1, _field(1 if isinstance(size, int) else 2, size)) for size in shape)
    tensor = _field(1, _TYPES[np.dtype(type_)]) + _field(2, dimensions)
    return _field(1, name) + _field(2, _field(1, tensor))


def _field(number: int, value: int | str | bytes) -> bytes:
    """A field of a message: a whole number by itself, all else with its length before it."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first; the eighth says that more follow."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])
