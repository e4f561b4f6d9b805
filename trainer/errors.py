"""The trainer's errors, by cause. Each message names the affected object and says what to do next."""

from __future__ import annotations

from binwatch.errors import BinwatchError


class ConfigError(BinwatchError):
    """An option is unknown, out of range, or contradicts another one."""


class DataError(BinwatchError):
    """Photos or their index cannot be used for training."""


class PrepareError(BinwatchError):
    """Photos cannot be fetched or written. Stored photos are complete; the same command continues."""


class DiskError(BinwatchError):
    """A file or folder cannot be written: the disk is full, or permission is denied."""


class WeightsError(BinwatchError):
    """Initial weights are missing or belong to another network."""


class CheckpointError(BinwatchError):
    """A checkpoint is missing, damaged, cannot be written, or does not belong to this run."""


class DivergedError(BinwatchError):
    """The training loss is not finite, so further training is useless."""


class RankError(BinwatchError):
    """One of a run's processes failed, which ends the run."""


class TuneError(BinwatchError):
    """A hyperparameter search was interrupted. Finished trials are stored; the same command continues."""


class ExportError(BinwatchError):
    """An exported model differs too much from the trained model."""


class PromotionError(BinwatchError):
    """A model cannot be promoted, for example because it is not better, or there is nothing to roll back to."""
