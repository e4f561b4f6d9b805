"""Checks of the files and folders that a command line names.

They import no torch, which takes seconds: a typo is answered at once.
"""

from __future__ import annotations

from pathlib import Path

from binwatch.bundle import CARD, Bundle
from trainer.config import Config, DataConfig
from trainer.data import index, source
from trainer.distributed import environment
from trainer.errors import ConfigError
from trainer.train.run_files import BEST, LAST, check_checkpoint, check_new


def check_run(config: Config, out: Path) -> None:
    """What a new run in `out` reads is there, and `out` holds no other run. Raises CheckpointError or DataError.

    Several processes may be on several machines: they check it when they have met, and name the one that fails.
    """
    if environment.several_processes():
        return
    check_new(out)
    check_data(config.data)
    for teacher in config.distil.teachers:
        check_checkpoint(teacher / BEST if teacher.is_dir() else teacher)


def check_resumable(out: Path) -> None:
    """`out` holds a run. Raises CheckpointError."""
    if not environment.several_processes():  # of which one alone needs it
        check_checkpoint(out / LAST)


def check_data(config: DataConfig) -> None:
    """Photos and their labels are there. Raises DataError."""
    source.check_there(config.photos)
    index.check_there(config)


def data_changes(photos: Path | None, index_file: Path | None) -> dict[str, Path]:
    """Options of a model's data set that a command line replaces. Raises DataError if one of the paths is not there."""
    if photos:
        source.check_there(photos)
    if index_file:
        index.check_file(index_file)
    return {name: path for name, path in (("photos", photos), ("index", index_file)) if path is not None}


def check_model(model: Path) -> None:
    """A checkpoint or a bundle is there. Raises CheckpointError, BundleError or ConfigError."""
    if not model.is_dir():
        check_checkpoint(model)
    elif (model / BEST).is_file() and not (model / CARD).exists():
        raise ConfigError(f"{model}: is the folder of a run; name its checkpoint, {model / BEST}")
    else:
        Bundle(model)


def check_file(file: Path) -> None:
    """A file is there. Raises ConfigError."""
    try:
        file.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
