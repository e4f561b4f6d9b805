"""fp32 → int8 for CPUs, and → fp16 for GPUs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from binwatch.bundle import INPUT

QUANTISED = ["Conv", "Relu", "MaxPool"]
"""What computes in int8. Residual sums stay in float: their channels differ too much in range for one scale, and they
cost little (44.7 photos/s against 44.2 with them in int8, one Zen 4 core)."""

PERCENTILE = 99.99
"""Share of each activation's values that int8 covers; the rest is clipped. The rare extremes of residual sums would
cost the precision of all others: of 96 validation photos 96 % keep their answer, 88 % with the full range."""

CALIBRATION_BATCH = 8


class _Photos(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Training photos, in batches, for the ranges of activations."""

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        # ONNX Runtime stacks what it sees of all batches, so a shorter last one would be an error: it is left out.
        size = min(CALIBRATION_BATCH, len(pixels))
        starts = range(0, len(pixels) - size + 1, size)
        self._batches: Iterator[npt.NDArray[np.uint8]] = (pixels[at : at + size] for at in starts)

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def write_int8(fp32: Path, int8: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Static QDQ quantisation, weights per channel, activation ranges from `pixels`, uint8 (photos, size, size, 3).

    Activations are unsigned, weights signed: on x86 ONNX Runtime is twice as fast with these as with both signed
    (44 against 20 photos/s on one Zen 4 core with VNNI).
    """
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(fp32, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            int8,
            _Photos(pixels),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE},
        )


def write_fp16(fp32: Path, fp16: Path) -> None:
    """Weights and activations in half precision; input and outputs as they were."""
    onnx.save(convert_float_to_float16(onnx.load(fp32), keep_io_types=True), fp16)
