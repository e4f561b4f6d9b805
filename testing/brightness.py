"""An ONNX model with known answers: it counts by mean brightness, from 0 for black to "more than 5" for white.

`highest` sets the largest quantity that it counts exactly; white is more than that.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from binwatch.bundle import (
    EMBEDDING_OUTPUT,
    INPUT_NAME,
    PROBABILITIES_OUTPUT,
    Card,
    Precision,
    make_variant,
    write_card,
)
from binwatch.counts import MAX_EXACT_COUNT

OPSET, IR_VERSION = 18, 10


def write_brightness_model(
    path: Path,
    *,
    input_name: str = INPUT_NAME,
    side: int = 224,
    input_type: int = TensorProto.UINT8,
    highest: int = MAX_EXACT_COUNT,
) -> None:
    """Write the ONNX file.

    The quantity is mean brightness × (highest + 2) / 256, rounded down. The embedding is the mean brightness, a single
    value.
    """
    num_classes = highest + 2
    constants = {
        "axes": np.array([1, 2, 3], dtype=np.int64),
        "to_classes": np.array(num_classes / 256, dtype=np.float32),
        "class_centres": np.arange(num_classes, dtype=np.float32)[None, :] + 0.5,
        "sharpness": np.array(-8.0, dtype=np.float32),
        "embedding_axis": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", [input_name], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "embedding_axis"], [EMBEDDING_OUTPUT]),
        helper.make_node("Mul", [EMBEDDING_OUTPUT, "to_classes"], ["level"]),
        helper.make_node("Sub", ["level", "class_centres"], ["distance"]),
        helper.make_node("Mul", ["distance", "distance"], ["squared"]),
        helper.make_node("Mul", ["squared", "sharpness"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [PROBABILITIES_OUTPUT], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info(input_name, input_type, ["batch", side, side, 3])],
        [
            helper.make_tensor_value_info(PROBABILITIES_OUTPUT, TensorProto.FLOAT, ["batch", num_classes]),
            helper.make_tensor_value_info(EMBEDDING_OUTPUT, TensorProto.FLOAT, ["batch", 1]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def write_brightness_bundle(folder: Path, version: str = "brightness-1", highest: int = MAX_EXACT_COUNT) -> Path:
    """Write a complete bundle with the brightness model."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model-int8.onnx"
    write_brightness_model(path, highest=highest)
    card = Card(
        version=version,
        highest=highest,
        architecture="brightness",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        embedding_size=1,
        temperature=1.0,
        variants={Precision.INT8: make_variant(path)},
    )
    write_card(folder, card)
    return folder


@lru_cache
def jpeg(brightness: int, side: int = 256) -> bytes:
    """A grey JPEG of one brightness."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (brightness,) * 3).save(file, "JPEG", quality=95)
    return file.getvalue()


def brightness_of(predicted: int, highest: int = MAX_EXACT_COUNT) -> int:
    """The brightness in the middle of the range that the model counts as `predicted`."""
    return round((predicted + 0.5) * 256 / (highest + 2))


def probabilities_of(brightness: float, highest: int = MAX_EXACT_COUNT) -> list[float]:
    """The probabilities that the model must give for a photo of this mean brightness."""
    num_classes = highest + 2
    logits = -8.0 * (brightness * num_classes / 256 - np.arange(num_classes) - 0.5) ** 2
    weights = np.exp(logits - logits.max())
    return [float(value) for value in weights / weights.sum()]
