"""Log lines with the metrics of each epoch, and the regular expressions with which SageMaker reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OBJECTIVE: Final = "validation:accuracy"
"""The metric that a tuning job maximises."""

_METRIC_NAMES: Final = {
    "train_loss": "train:loss",
    "val_loss": "validation:loss",
    "val_accuracy": OBJECTIVE,
    "val_within_one": "validation:within_one",
    "val_mae": "validation:mae",
    "val_rmse": "validation:rmse",
    "photos_per_second": "train:photos_per_second",
    "test_accuracy": "test:accuracy",
    "test_within_one": "test:within_one",
    "test_mae": "test:mae",
    "test_rmse": "test:rmse",
}
"""Column of the training log → name of the metric in SageMaker."""

DEFINITIONS: Final = [{"Name": name, "Regex": rf"\b{name}=([0-9.eE+-]+)"} for name in _METRIC_NAMES.values()]
"""MetricDefinitions of a training job."""


def line(figures: Mapping[str, float]) -> str:
    """Format the figures that are metrics as `epoch=3 train:loss=1.204512 validation:accuracy=0.412500 …`."""
    epoch = [f"epoch={figures['epoch']:.0f}"] if "epoch" in figures else []
    metrics = [f"{name}={figures[column]:.6f}" for column, name in _METRIC_NAMES.items() if column in figures]
    return " ".join([*epoch, *metrics])
