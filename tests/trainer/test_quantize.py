"""Conversion of small ONNX files to int8."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from binwatch.bundle import INPUT_NAME
from binwatch.onnx_session import EXACT_INT8_OPTIONS
from trainer.export.quantize import write_int8

SIDE = 16


def write_small(file: Path) -> None:
    """Write a model with one convolution: uint8 (photos, 16, 16, 3) → float32 (photos, 4, 1, 1)."""
    random = np.random.default_rng(0)
    weights = random.normal(size=(4, 3, 3, 3))
    convolutions = [helper.make_node("Conv", ["planes", "weights"], ["convolved"], name="conv")]
    write_model(file, weights, convolutions)


def write_model(file: Path, weights: npt.NDArray[np.float64], convolutions: list[onnx.NodeProto]) -> None:
    """Photos, uint8 (photos, 16, 16, 3), as `planes` through `convolutions` to `convolved`, and the mean over it."""
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        *convolutions,
        helper.make_node("Relu", ["convolved"], ["positive"], name="relu"),
        helper.make_node("GlobalAveragePool", ["positive"], ["out"]),
    ]
    model_input = helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["photos", SIDE, SIDE, 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["photos", len(weights), 1, 1])
    initializer = numpy_helper.from_array(weights.astype(np.float32), "weights")
    graph = helper.make_graph(nodes, "small", [model_input], [out], [initializer])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)


@pytest.mark.parametrize("photos", [1, 5, 8, 11, 16])
def test_activation_ranges_from_any_number_of_photos(photos: int, tmp_path: Path) -> None:
    write_small(tmp_path / "fp32.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (photos, SIDE, SIDE, 3), np.uint8)
    write_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", pixels)
    expected, result = (
        ort.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]).run(None, {INPUT_NAME: pixels})[0]
        for name in ("fp32.onnx", "int8.onnx")
    )
    assert result.shape == (photos, 4, 1, 1)
    np.testing.assert_allclose(result, expected, rtol=0.05, atol=2)


def test_equal_weights_load_where_int8_products_saturate(tmp_path: Path) -> None:
    """The exporter keeps equal weights once, and there ONNX Runtime would convert them under one name for each use."""
    names = ["planes", "first", "second", "convolved"]
    uses = [
        helper.make_node("Conv", [before, "weights"], [after], name=f"conv-{after}")
        for before, after in itertools.pairwise(names)
    ]
    write_model(tmp_path / "fp32.onnx", np.random.default_rng(0).normal(size=(3, 3, 1, 1)), uses)
    pixels = np.random.default_rng(1).integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)
    write_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", pixels)
    options = ort.SessionOptions()
    for name, value in EXACT_INT8_OPTIONS.items():
        options.add_session_config_entry(name, value)
    expected = ort.InferenceSession(tmp_path / "fp32.onnx", providers=["CPUExecutionProvider"]).run(
        None, {INPUT_NAME: pixels}
    )
    result = ort.InferenceSession(tmp_path / "int8.onnx", options, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        result.run(None, {INPUT_NAME: pixels})[0], expected[0], rtol=0.1, atol=0.02 * np.max(expected[0])
    )
