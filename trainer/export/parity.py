"""Compares the outputs of an exported file with those of the trained network. Export fails if they differ too much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from binwatch.bundle import Precision
from binwatch.counts import CountRule, class_probabilities, predict_counts
from binwatch.text import count_noun
from trainer.errors import ExportError
from trainer.evaluation.onnx_model import OnnxModel

Floats = npt.NDArray[np.floating]

MAX_LOSS = 0.005
"""Default maximum loss of validation accuracy of a variant against the trained network, as a share of the photos."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Maximum allowed difference from the probabilities of the trained network."""

    largest: float
    """Limit of the largest absolute difference."""
    mean: float
    """Limit of the mean absolute difference."""


TOLERANCES = {
    Precision.FP32: Tolerance(largest=1e-3, mean=1e-5),
    Precision.FP16: Tolerance(largest=5e-2, mean=2e-3),
    Precision.INT8: Tolerance(largest=0.5, mean=2e-2),
}
ADVICE = {
    Precision.FP32: "this is a fault of the exporter: report it, with the architecture",
    Precision.FP16: "half precision cannot hold activations over 65,504: leave fp16 out (--variants)",
    Precision.INT8: "some networks lose too much in int8, above all those without ReLU: leave int8 out (--variants)",
}
"""What to do if a file differs too much. A network that is accurate in fp32 or bf16 may not be in another precision."""
CHECKED_BATCH_SIZES = (1, 7)
"""Batch sizes that must give the same outputs. Some exports silently fix the batch dimension."""
MAX_BATCH_DIFFERENCE = 2e-2
"""Maximum difference of probabilities between batch sizes. int8 sums are exact, but fp16 kernels depend on the size."""


def check_outputs(file: Path, precision: Precision, actual: Floats, expected: Floats) -> dict[str, float]:
    """Compare a distribution (photos, quantities) with the trained network's.

    Returns the differences for the card. Raises ExportError if they exceed the precision's tolerance.
    """
    not_finite = int((~np.isfinite(actual).all(axis=1)).sum())
    if not_finite:
        raise ExportError(
            f"{file.name}: the output for {not_finite} of {count_noun(len(actual), 'photo')} is not a number;"
            f" {ADVICE[precision]}"
        )
    if not np.allclose(actual.sum(axis=1), 1, atol=1e-3):
        raise ExportError(f"{file.name}: probabilities do not sum to 1")
    difference = np.abs(actual - expected)
    largest, mean = float(difference.max()), float(difference.mean())
    allowed = TOLERANCES[precision]
    if largest > allowed.largest or mean > allowed.mean:
        raise ExportError(
            f"{file.name}: probabilities are up to {largest:.2g} (mean {mean:.2g}) from the trained network's;"
            f" {precision} may differ by {allowed.largest:g} (mean {allowed.mean:g}); {ADVICE[precision]}"
        )
    return {"largest_difference": largest, "mean_difference": mean}


def check_accuracy(
    file: Path,
    actual: Floats,
    expected: Floats,
    labels: npt.NDArray[np.int64],
    max_loss: float = MAX_LOSS,
    rule: CountRule = CountRule.MODE,
) -> float:
    """Return the loss of accuracy against the trained network, as a share. Raises ExportError above `max_loss`."""
    before, after = (
        float((predict_counts(rule, class_probabilities(each)) == labels).mean()) for each in (expected, actual)
    )
    if before - after > max_loss + 1e-9:  # a loss of exactly the limit is allowed, despite rounding
        raise ExportError(
            f"{file.name}: counts {after:.2%} of {len(labels)} validation photos right, the trained network"
            f" {before:.2%}; at most {max_loss:.1%} may be lost: allow more (--max-loss) or leave it out (--variants)"
        )
    return before - after


def check_batches(file: Path, model: OnnxModel, pixels: npt.NDArray[np.uint8]) -> None:
    """Raise ExportError unless the same photos give the same probabilities in batches of different sizes."""
    expected, _ = model(pixels)
    for size in CHECKED_BATCH_SIZES:
        batches = [model(pixels[start : start + size])[0] for start in range(0, len(pixels), size)]
        difference = float(np.abs(np.concatenate(batches) - expected).max())
        if difference > MAX_BATCH_DIFFERENCE:
            raise ExportError(
                f"{file.name}: probabilities in batches of {size} differ by {difference:.2g} from those in a batch of"
                f" {len(pixels)}; the batch dimension is not free"
            )
