from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from binwatch.bundle import INPUT
from trainer.export.quantize import write_int8

SIDE = 16


def write_small(file: Path) -> None:
    """One convolution: uint8 (photos, 16, 16, 3) → float32 (photos, 4, 1, 1)."""
    random = np.random.default_rng(0)
    weights = numpy_helper.from_array(random.normal(size=(4, 3, 3, 3)).astype(np.float32), "weights")
    nodes = [
        helper.make_node("Cast", [INPUT], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], ["convolved"], name="conv"),
        helper.make_node("Relu", ["convolved"], ["positive"], name="relu"),
        helper.make_node("GlobalAveragePool", ["positive"], ["out"]),
    ]
    given = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["photos", SIDE, SIDE, 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["photos", 4, 1, 1])
    graph = helper.make_graph(nodes, "small", [given], [out], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)


@pytest.mark.parametrize("photos", [1, 5, 8, 11, 16])
def test_any_number_of_photos_gives_the_ranges(photos: int, tmp_path: Path) -> None:
    write_small(tmp_path / "fp32.onnx")
    pixels = np.random.default_rng(1).integers(0, 256, (photos, SIDE, SIDE, 3), np.uint8)
    write_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", pixels)
    wanted, found = (
        ort.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]).run(None, {INPUT: pixels})[0]
        for name in ("fp32.onnx", "int8.onnx")
    )
    assert found.shape == (photos, 4, 1, 1)
    np.testing.assert_allclose(found, wanted, rtol=0.05, atol=2)
