"""Figures of each epoch as lines of the log, and the regular expressions by which SageMaker reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OBJECTIVE: Final = "validation:accuracy"
"""The metric that a tuning job maximises."""

_NAMES: Final = {
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
"""Column of the log → name of the metric."""

DEFINITIONS: Final = [{"Name": name, "Regex": rf"\b{name}=([0-9.eE+-]+)"} for name in _NAMES.values()]
"""MetricDefinitions of a training job."""


def line(figures: Mapping[str, float]) -> str:
    """`epoch=3 train:loss=1.204512 validation:accuracy=0.412500 …`, of the figures that have a name."""
    epoch = [f"epoch={figures['epoch']:.0f}"] if "epoch" in figures else []
    return " ".join([*epoch, *(f"{name}={figures[of]:.6f}" for of, name in _NAMES.items() if of in figures)])
