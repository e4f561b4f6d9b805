"""Comparison of an exported file's outputs with those of the trained network. Export fails if they differ too much."""

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
"""Share of validation photos by which a variant may, by default, be less accurate than the trained network."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far probabilities may be from the trained network's: the largest difference, and the mean one."""

    most: float
    mean: float


TOLERANCES = {
    Precision.FP32: Tolerance(most=1e-3, mean=1e-5),
    Precision.FP16: Tolerance(most=5e-2, mean=2e-3),
    Precision.INT8: Tolerance(most=0.5, mean=2e-2),
}
ADVICE = {
    Precision.FP32: "this is a fault of the exporter: report it, with the architecture",
    Precision.FP16: "half precision cannot hold activations over 65,504: leave fp16 out (--variants)",
    Precision.INT8: "some networks lose too much in int8, above all those without ReLU: leave int8 out (--variants)",
}
"""What to do about a file that differs too much. A network that is good in fp32 or bf16 may be unfit for the others."""
BATCHES = (1, 7)
"""Batch sizes that must give the same outputs. Some exports silently fix the batch dimension."""
SAME = 2e-2
"""Largest difference of probabilities between batch sizes. int8 sums are exact, but fp16 kernels differ by size."""


def check_outputs(file: Path, precision: Precision, found: Floats, wanted: Floats) -> dict[str, float]:
    """Compare a distribution (photos, quantities) with the trained network's. Raises ExportError beyond tolerance."""
    broken = int((~np.isfinite(found).all(axis=1)).sum())
    if broken:
        raise ExportError(
            f"{file.name}: the output for {broken} of {count_noun(len(found), 'photo')} is not a number;"
            f" {ADVICE[precision]}"
        )
    if not np.allclose(found.sum(axis=1), 1, atol=1e-3):
        raise ExportError(f"{file.name}: probabilities do not sum to 1")
    distance = np.abs(found - wanted)
    most, mean = float(distance.max()), float(distance.mean())
    allowed = TOLERANCES[precision]
    if most > allowed.most or mean > allowed.mean:
        raise ExportError(
            f"{file.name}: probabilities are up to {most:.2g} (mean {mean:.2g}) from the trained network's;"
            f" {precision} may differ by {allowed.most:g} (mean {allowed.mean:g}); {ADVICE[precision]}"
        )
    return {"largest_difference": most, "mean_difference": mean}


def check_accuracy(
    file: Path,
    found: Floats,
    wanted: Floats,
    labels: npt.NDArray[np.int64],
    max_loss: float = MAX_LOSS,
    rule: CountRule = CountRule.MODE,
) -> float:
    """Accuracy lost against the trained network, as a share. Raises ExportError if it is more than `max_loss`."""
    before, after = (
        float((predict_counts(rule, class_probabilities(each)) == labels).mean()) for each in (wanted, found)
    )
    if before - after > max_loss + 1e-9:  # a loss of exactly the limit is allowed, despite rounding
        raise ExportError(
            f"{file.name}: counts {after:.2%} of {len(labels)} validation photos right, the trained network"
            f" {before:.2%}; at most {max_loss:.1%} may be lost: allow more (--max-loss) or leave it out (--variants)"
        )
    return before - after


def check_batches(file: Path, model: OnnxModel, pixels: npt.NDArray[np.uint8]) -> None:
    """The same photos in batches of different sizes must give the same probabilities."""
    together, _ = model(pixels)
    for size in BATCHES:
        parts = [model(pixels[at : at + size])[0] for at in range(0, len(pixels), size)]
        distance = float(np.abs(np.concatenate(parts) - together).max())
        if distance > SAME:
            raise ExportError(
                f"{file.name}: probabilities in batches of {size} differ by {distance:.2g} from those in a batch of"
                f" {len(pixels)}; the batch dimension is not free"
            )
