"""The files in the folder of a run: their names, and checks that they exist. This module needs no torch."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import CheckpointError, ConfigError

BEST_CHECKPOINT = "best.pt"
LAST_CHECKPOINT = "last.pt"
LOG_FILE = "epochs.csv"
CURVES_FILE = "epochs.png"
TENSORBOARD_FOLDER = "tensorboard"
FEATURES_FOLDER = "features"
"""Folder with the stored outputs of frozen layers and teachers."""
STUDY_FILE = "study.db"
"""File in the folder of a study."""


def check_new(folder: Path) -> None:
    """Raise CheckpointError if `folder` contains a run."""
    if (folder / LAST_CHECKPOINT).exists():
        raise CheckpointError(f"{folder}: has a run already; continue it with --resume or choose another folder")


def check_checkpoint(file: Path) -> None:
    """Raise CheckpointError if `file` does not exist."""
    if not file.is_file():
        raise CheckpointError(f"{file}: no such checkpoint")


def check_study(folder: Path) -> None:
    """Raise ConfigError if `folder` contains no study."""
    if not (folder / STUDY_FILE).exists():
        raise ConfigError(f"{folder}: has no study; run: python -m trainer tune")
