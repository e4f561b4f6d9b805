"""A small network in fp32 and in int8 as quantised by the trainer; its products saturate on CPUs without VNNI."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from binwatch import self_check
from binwatch.bundle import (
    EMBEDDING_OUTPUT,
    INPUT_NAME,
    PROBABILITIES_OUTPUT,
    Card,
    Precision,
    make_variant,
    write_card,
)
from binwatch.counts import CLASSES
from trainer.evaluation.onnx_model import OnnxModel, self_check_of
from trainer.export.quantize import write_int8

CHANNELS = 32


def write_network(file: Path) -> None:
    """Write two convolutions with weights of one sign, so that large activations meet large weights."""
    random = np.random.default_rng(0)
    weights = {
        "first": random.uniform(0, 0.01, (CHANNELS, 3, 16, 16)),
        "second": random.uniform(0.02, 0.03, (CHANNELS, CHANNELS, 1, 1)),
        "classes": random.normal(0, 0.001, (CHANNELS, len(CLASSES))),
    }
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "first"], ["one"], name="one", strides=[16, 16]),
        helper.make_node("Relu", ["one"], ["first_positive"], name="relu_one"),
        helper.make_node("Conv", ["first_positive", "second"], ["two"], name="two"),
        helper.make_node("Relu", ["two"], ["second_positive"], name="relu_two"),
        helper.make_node("GlobalAveragePool", ["second_positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], [EMBEDDING_OUTPUT]),
        helper.make_node("Gemm", [EMBEDDING_OUTPUT, "classes"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [PROBABILITIES_OUTPUT], axis=1),
    ]
    side = 224
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["batch", side, side, 3])],
        [
            helper.make_tensor_value_info(PROBABILITIES_OUTPUT, TensorProto.FLOAT, ["batch", len(CLASSES)]),
            helper.make_tensor_value_info(EMBEDDING_OUTPUT, TensorProto.FLOAT, ["batch", CHANNELS]),
        ],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)


def write_quantised_bundle(folder: Path) -> Path:
    """Write a bundle with fp32 and int8 variants and their self-checks."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {precision: folder / f"model-{precision}.onnx" for precision in (Precision.FP32, Precision.INT8)}
    write_network(files[Precision.FP32])
    write_int8(files[Precision.FP32], files[Precision.INT8], self_check.make_photos(224))
    card = Card(
        version="quantised-1",
        architecture="small",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        embedding_size=CHANNELS,
        temperature=1.0,
        variants={name: make_variant(file, self_check=self_check_of(OnnxModel(file))) for name, file in files.items()},
    )
    write_card(folder, card)
    return folder
