"""The trainer's errors, by cause. Each message names the thing and says what to do next."""

from __future__ import annotations

from binwatch.errors import BinwatchError


class ConfigError(BinwatchError):
    """The configuration is misspelt, out of range or contradicts itself."""


class DataError(BinwatchError):
    """Photos or their index cannot be used for training."""


class PrepareError(BinwatchError):
    """Photos cannot be fetched or written. Those that are stored are complete: the same command continues."""


class DiskError(BinwatchError):
    """A file or folder cannot be written: the disk is full, or permission is denied."""


class WeightsError(BinwatchError):
    """Initial weights are missing or belong to another network."""


class CheckpointError(BinwatchError):
    """A checkpoint is missing, damaged or of another configuration."""


class DivergedError(BinwatchError):
    """The loss of a run is no longer a number, so further training is useless."""


class RankError(BinwatchError):
    """One of several processes of a run failed, which ends the run."""


class TuneError(BinwatchError):
    """A search for options was interrupted. Finished trials are stored: the same command continues."""


class ExportError(BinwatchError):
    """An exported model differs too much from the one that was trained."""


class PromotionError(BinwatchError):
    """A model is not promoted: it is not better than the one in use, or there is no previous one for a rollback."""
