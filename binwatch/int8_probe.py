"""A tiny quantised model with known output that reveals whether int8 products saturate on this CPU.

x86 CPUs without VNNI (Intel before Cascade Lake, AMD before Zen 4) multiply unsigned by signed bytes with an
instruction that adds two products in 16 bits and saturates: 255 × 127 + 255 × 127 becomes 32,767. The model has only
such products. It is encoded here byte by byte, since a worker has ONNX Runtime but not the package `onnx`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CHANNELS, FILTERS, ROWS = 64, 32, 4
MAX_ACTIVATION, WEIGHT = 255, 127
EXACT_OUTPUT = 200
"""Value of every output if no product saturates; 101 if all do."""

_FLOAT, _UINT8, _INT8 = 1, 2, 3  # onnx.TensorProto.DataType
_IR_VERSION, _OPSET = 8, 13
_SCALE = MAX_ACTIVATION * WEIGHT * CHANNELS / EXACT_OUTPUT


def build_inputs() -> dict[str, npt.NDArray[np.uint8]]:
    """Build inputs with the largest activations for the convolution and the matrix product, whose kernels differ."""
    return {
        "pixels": np.full((1, CHANNELS, 2, 2), MAX_ACTIVATION, np.uint8),
        "rows": np.full((ROWS, CHANNELS), MAX_ACTIVATION, np.uint8),
    }


def is_exact(outputs: list[npt.NDArray[np.uint8]]) -> bool:
    """Return whether no product in the model's outputs has saturated."""
    return all(bool((output == EXACT_OUTPUT).all()) for output in outputs)


def build_model() -> bytes:
    """Build the model as the bytes of an ONNX file."""
    weights = bytes([WEIGHT]) * (FILTERS * CHANNELS)
    tensors = [
        _tensor("one", _FLOAT, [], np.float32(1).tobytes()),
        _tensor("scale", _FLOAT, [], np.float32(_SCALE).tobytes()),
        _tensor("zero", _UINT8, [], b"\0"),
        _tensor("filters", _INT8, [FILTERS, CHANNELS, 1, 1], weights),
        _tensor("matrix", _INT8, [CHANNELS, FILTERS], weights),
        # Two zero points, since ONNX Runtime 1.31 cannot replace one that two nodes share.
        _tensor("filters_zero", _INT8, [], b"\0"),
        _tensor("matrix_zero", _INT8, [], b"\0"),
    ]
    graph = [
        _field(1, _node("QLinearConv", "pixels", "filters", "convolved")),
        _field(1, _node("QLinearMatMul", "rows", "matrix", "multiplied")),
        _field(2, b"int8_probe"),
        *(_field(5, tensor) for tensor in tensors),
        *(_field(11, _value(name, array.shape)) for name, array in build_inputs().items()),
        _field(12, _value("convolved", (1, FILTERS, 2, 2))),
        _field(12, _value("multiplied", (ROWS, FILTERS))),
    ]
    opset = _field(1, b"") + _field(2, _OPSET)
    return _field(1, _IR_VERSION) + _field(7, b"".join(graph)) + _field(8, opset)


# Messages of onnx.proto, by their field numbers.


def _node(operator: str, activations: str, weights: str, output: str) -> bytes:
    names = (activations, "one", "zero", weights, "one", f"{weights}_zero", "scale", "zero")
    return (
        b"".join(_field(1, name.encode()) for name in names) + _field(2, output.encode()) + _field(4, operator.encode())
    )


def _tensor(name: str, kind: int, shape: list[int], raw: bytes) -> bytes:
    return b"".join(_field(1, size) for size in shape) + _field(2, kind) + _field(8, name.encode()) + _field(9, raw)


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(_field(1, _field(1, size)) for size in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, _UINT8) + _field(2, sizes)))


def _field(number: int, value: int | bytes) -> bytes:
    """Encode one field of a protocol buffers message: a number, or bytes with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
