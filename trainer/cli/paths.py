"""Checks of the files and folders that are named on the command line.

They do not import torch, which takes seconds, so that a typo is reported immediately.
"""

from __future__ import annotations

from pathlib import Path

from binwatch.bundle import CARD_FILE, Bundle
from trainer.config import Config, DataConfig
from trainer.data import index, source
from trainer.distributed import environment
from trainer.errors import ConfigError
from trainer.train.run_files import BEST_CHECKPOINT, LAST_CHECKPOINT, check_checkpoint, check_new


def check_run(config: Config, out: Path) -> None:
    """Raise CheckpointError or DataError if an input of a new run is missing, or if `out` already has a run.

    The processes of a distributed run may be on several machines. They check their inputs after they have connected, so
    that the error names the process that fails.
    """
    if environment.is_distributed():
        return
    check_new(out)
    check_data(config.data)
    for teacher in config.distil.teachers:
        check_checkpoint(teacher / BEST_CHECKPOINT if teacher.is_dir() else teacher)


def check_resumable(out: Path) -> None:
    """Raise CheckpointError if `out` has no run."""
    if not environment.is_distributed():  # only the main process needs it
        check_checkpoint(out / LAST_CHECKPOINT)


def check_data(config: DataConfig) -> None:
    """Raise DataError if photos or labels are missing."""
    source.check_exists(config.photos)
    index.check_exists(config)


def data_changes(photos: Path | None, index_file: Path | None) -> dict[str, Path]:
    """Return the data options that --photos and --index override. Raises DataError if a path does not exist."""
    if photos:
        source.check_exists(photos)
    if index_file:
        index.check_index_file(index_file)
    return {name: path for name, path in (("photos", photos), ("index", index_file)) if path is not None}


def check_model(model: Path) -> None:
    """Raise CheckpointError, BundleError or ConfigError if `model` is neither a checkpoint nor a bundle."""
    if not model.is_dir():
        check_checkpoint(model)
    elif (model / BEST_CHECKPOINT).is_file() and not (model / CARD_FILE).exists():
        raise ConfigError(f"{model}: is the folder of a run; give its checkpoint, {model / BEST_CHECKPOINT}")
    else:
        Bundle(model)


def check_file(file: Path) -> None:
    """Raise ConfigError if a file cannot be read."""
    try:
        file.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
