"""fp32 → int8 for CPUs, and → fp16 for GPUs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from binwatch.bundle import INPUT_NAME

QUANTISED = ["Conv", "MatMul", "Relu", "Clip", "MaxPool"]
"""Operators that compute in int8. Residual sums stay in float: the ranges of their channels differ too much for one
scale, and they cost little (44.7 photos/s against 44.2 with them in int8, one Zen 4 core). SiLU, GELU and layer norms
stay in float, too: ONNX Runtime has no int8 kernels that make them faster. The few `Gemm` of the head would gain less
time than they lose accuracy. `Clip` is the ReLU6 of EfficientNet-Lite and MobileNetV2: with it in int8, the convolution
before it gets the limited range."""

PERCENTILE = 99.99
"""Percentage of each activation's values that int8 covers; the rest is clipped. The rare extremes of residual sums
would make all other values less precise: 96 % of 96 validation photos keep their count, 88 % with the full range."""

CALIBRATION_BATCH = 8
"""Photos whose activations are in memory at a time."""


Pixels = npt.NDArray[np.uint8]
Follow = Callable[[Iterable[Pixels]], Iterable[Pixels]]
"""Wraps batches of photos with a progress bar."""


class _Photos(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Training photos in batches, for the ranges of activations. ONNX Runtime requests ranges of batches in order."""

    def __init__(self, pixels: Pixels, follow: Follow) -> None:
        parts = [pixels[at : at + CALIBRATION_BATCH] for at in range(0, len(pixels), CALIBRATION_BATCH)]
        self._batches = self._left = len(parts)
        self._rest = iter(follow(parts))
        self._due = 0

    def __len__(self) -> int:
        return self._batches

    def set_range(self, start_index: int, end_index: int) -> None:
        """Set the number of batches that `get_next` returns until it returns None."""
        self._due = end_index - start_index

    def get_next(self) -> dict[str, Pixels] | None:
        """The next batch, or None at the end of the range."""
        if self._due == 0:
            if self._left == 0:
                next(self._rest, None)  # ends the progress bar
            return None
        self._due -= 1
        self._left -= 1
        return {INPUT_NAME: next(self._rest)}


def write_int8(fp32: Path, int8: Path, pixels: Pixels, follow: Follow = lambda batches: batches) -> None:
    """Static QDQ quantisation, weights per channel, activation ranges from `pixels`, uint8 (photos, size, size, 3).

    Activations are unsigned, weights signed: on x86 ONNX Runtime is twice as fast with these as with both signed
    (44 against 20 photos/s on one Zen 4 core with VNNI).
    """
    # ONNX Runtime prints its progress, which a user cannot act on.
    with TemporaryDirectory() as folder, warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(fp32, prepared, skip_symbolic_shape=True)
        quantize_static(
            unshared(onnx.load(prepared)),
            int8,
            _Photos(pixels, follow),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            # Despite its name, the stride is used by every method. Without it, the activations of all photos are kept
            # in memory at once, 50 to 200 MB for each photo.
            extra_options={"CalibPercentile": PERCENTILE, "CalibStridedMinMax": 1},
        )


def unshared(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, changed in place: no two inputs of its nodes are one initializer.

    The exporter stores equal tensors once, such as the weights of untrained norms. On CPUs on which int8 products
    saturate (see `binwatch.onnx_session`), ONNX Runtime 1.31 converts a weight once for each use, under the same name,
    and then refuses the model.
    """
    values = {each.name: each for each in model.graph.initializer}
    used: set[str] = set()
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name not in values:
                continue
            if name in used:
                copy = model.graph.initializer.add()
                copy.CopyFrom(values[name])
                copy.name = node.input[place] = f"{name}/{node.name or node.output[0]}/{place}"
            used.add(name)
    return model


def write_fp16(fp32: Path, fp16: Path) -> None:
    """Convert weights and activations to half precision; input and outputs stay as they are."""
    onnx.save(convert_float_to_float16(onnx.load(fp32), keep_io_types=True), fp16)
