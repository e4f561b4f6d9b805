"""The files in the folder of a run: their names, and whether they are there. Without torch."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import CheckpointError, ConfigError

BEST = "best.pt"
LAST = "last.pt"
LOG = "epochs.csv"
CURVES = "epochs.png"
TENSORBOARD = "tensorboard"
FEATURES = "features"
"""Folder of what the frozen layers see."""
STUDY = "study.db"
"""In the folder of a study."""


def check_new(folder: Path) -> None:
    """Raises CheckpointError if `folder` holds a run already."""
    if (folder / LAST).exists():
        raise CheckpointError(f"{folder}: holds a run already; continue it with --resume or choose another folder")


def check_checkpoint(file: Path) -> None:
    """Raises CheckpointError if there is no such file."""
    if not file.is_file():
        raise CheckpointError(f"{file}: no such checkpoint")


def check_study(folder: Path) -> None:
    """Raises ConfigError if `folder` holds no study."""
    if not (folder / STUDY).exists():
        raise ConfigError(f"{folder}: holds no study; run: python -m trainer tune")
