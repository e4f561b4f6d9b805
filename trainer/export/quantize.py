"""Conversion of the fp32 file to int8 for CPUs, and to fp16 for GPUs."""

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

INT8_OPERATORS = ["Conv", "MatMul", "Relu", "Clip", "MaxPool"]
"""Operators that compute in int8. Residual sums stay in float: the ranges of their channels differ too much for one
scale, and they cost little (44.7 photos/s against 44.2 with them in int8, one Zen 4 core). SiLU, GELU and layer norms
stay in float, too: ONNX Runtime has no int8 kernels that make them faster. In int8, the head's few `Gemm` operators
would lose accuracy and save hardly any time. `Clip` is the ReLU6 of EfficientNet-Lite and MobileNetV2: if it is
quantised, the convolution before it gets the clipped range."""

PERCENTILE = 99.99
"""Percentage of each activation's values that int8 covers; the rest is clipped. The rare extremes of residual sums
would make all other values less precise: 96 % of 96 validation photos keep their count, 88 % with the full range."""

CALIBRATION_BATCH_SIZE = 8
"""Photos whose activations are in memory at the same time."""

Pixels = npt.NDArray[np.uint8]
Track = Callable[[Iterable[Pixels]], Iterable[Pixels]]
"""Shows a progress bar while it yields batches of photos unchanged."""


class _CalibrationReader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Batches of photos for the ranges of activations. ONNX Runtime requests consecutive ranges of batches."""

    def __init__(self, pixels: Pixels, track: Track) -> None:
        size = CALIBRATION_BATCH_SIZE
        batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        self._total = self._remaining = len(batches)
        self._batches = iter(track(batches))
        self._remaining_in_range = 0

    def __len__(self) -> int:
        return self._total

    def set_range(self, start_index: int, end_index: int) -> None:
        """Set the number of batches that `get_next` returns before it returns None."""
        self._remaining_in_range = end_index - start_index

    def get_next(self) -> dict[str, Pixels] | None:
        """Return the next batch, or None at the end of the range."""
        if self._remaining_in_range == 0:
            if self._remaining == 0:
                next(self._batches, None)  # ends the progress bar
            return None
        self._remaining_in_range -= 1
        self._remaining -= 1
        return {INPUT_NAME: next(self._batches)}


def write_int8(fp32: Path, int8: Path, pixels: Pixels, track: Track = lambda batches: batches) -> None:
    """Quantise the fp32 file statically (QDQ), with weights per channel.

    The ranges of activations follow from `pixels`, uint8 (photos, size, size, 3). Activations are unsigned and weights
    signed: on x86, ONNX Runtime is twice as fast with these as with both signed (44 against 20 photos/s on one Zen 4
    core with VNNI).
    """
    # ONNX Runtime prints its progress, which a user cannot act on.
    with TemporaryDirectory() as folder, warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(fp32, prepared, skip_symbolic_shape=True)
        quantize_static(
            unshare_initializers(onnx.load(prepared)),
            int8,
            _CalibrationReader(pixels, track),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=INT8_OPERATORS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            # Despite its name, CalibStridedMinMax applies to every calibration method. Without it, the activations
            # of all photos are in memory at once, 50 to 200 MB per photo.
            extra_options={"CalibPercentile": PERCENTILE, "CalibStridedMinMax": 1},
        )


def unshare_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy the initializers of `model` in place, so that no two node inputs share one. Returns `model`.

    The exporter stores equal tensors once, such as the weights of untrained norms. On CPUs on which int8 products
    saturate (see `binwatch.onnx_session`), ONNX Runtime 1.31 converts a weight once for each use, under the same name,
    and then refuses the model.
    """
    initializers = {each.name: each for each in model.graph.initializer}
    used: set[str] = set()
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name not in initializers:
                continue
            if name in used:
                copy = model.graph.initializer.add()
                copy.CopyFrom(initializers[name])
                copy.name = node.input[position] = f"{name}/{node.name or node.output[0]}/{position}"
            used.add(name)
    return model


def write_fp16(fp32: Path, fp16: Path) -> None:
    """Convert weights and activations to half precision. The types of the input and the outputs do not change."""
    onnx.save(convert_float_to_float16(onnx.load(fp32), keep_io_types=True), fp16)
