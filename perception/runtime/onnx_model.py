"""Writing small ONNX models without the onnx package: protocol buffers by hand, see `onnx_file`."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10}
_IR_VERSION, OPSET = 8, 17

Attribute = int | float | str | Sequence[int]


def type_number(dtype: str) -> int:
    """ONNX's number of an element type, as the attribute `to` of a Cast takes it."""
    return _TYPES[dtype]


def node(kind: str, inputs: Sequence[str], output: str, **attributes: Attribute) -> bytes:
    """An operator with one output, which it is named by; an input "" is left out."""
    parts = [_text(1, name) for name in inputs]
    parts += [_text(2, output), _text(3, output), _text(4, kind)]
    return b"".join((*parts, *(_bytes(5, _attribute(n, v)) for n, v in attributes.items())))


def reduction(
    kind: str,
    given: str,
    axes_name: str,
    output: str,
    opset: int,
    *,
    axes: Sequence[int],
    keepdims: int = 0,
) -> bytes:
    """A reduction other than ReduceSum, whose axes became an input, here `axes_name`, in opset 18."""
    if opset >= 18:
        return node(kind, [given, axes_name], output, keepdims=keepdims)
    return node(kind, [given], output, axes=axes, keepdims=keepdims)


def model(
    nodes: Sequence[bytes],
    inputs: Mapping[str, tuple[str, Sequence[int]]],
    outputs: Mapping[str, tuple[str, Sequence[int]]],
    constants: Mapping[str, NDArray[np.generic]],
) -> bytes:
    """A model file.

    Args:
        nodes: in the order in which they can be computed.
        inputs, outputs: dtype and shape by name.
        constants: by name.
    """
    graph = b"".join(
        (
            *(_bytes(1, n) for n in nodes),
            _text(2, "graph"),
            *(_bytes(5, _tensor(name, value)) for name, value in constants.items()),
            *(_bytes(11, _value(name, *about)) for name, about in inputs.items()),
            *(_bytes(12, _value(name, *about)) for name, about in outputs.items()),
        )
    )
    opset = _text(1, "") + _integer(2, OPSET)
    return _integer(1, _IR_VERSION) + _bytes(7, graph) + _bytes(8, opset)


def _attribute(name: str, value: Attribute) -> bytes:
    head = _text(1, name)
    if isinstance(value, float):
        return head + bytes([2 << 3 | 5]) + struct.pack("<f", value) + _integer(20, 1)
    if isinstance(value, int):
        return head + _integer(3, value) + _integer(20, 2)
    if isinstance(value, str):
        return head + _text(4, value) + _integer(20, 3)
    return head + b"".join(_integer(8, v) for v in value) + _integer(20, 7)


def _tensor(name: str, value: NDArray[np.generic]) -> bytes:
    dims = b"".join(_integer(1, size) for size in value.shape)
    raw = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes()
    return dims + _integer(2, _TYPES[value.dtype.name]) + _text(8, name) + _bytes(9, raw)


def _value(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    dims = b"".join(_bytes(1, _integer(1, size)) for size in shape)
    tensor = _integer(1, _TYPES[dtype]) + _bytes(2, dims)
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative ones as two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _text(number: int, text: str) -> bytes:
    return _bytes(number, text.encode())
