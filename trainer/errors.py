"""What can go wrong in training, by cause. Each message names the thing and says what to do next."""

from __future__ import annotations

from binwatch.errors import BinwatchError


class ConfigError(BinwatchError):
    """The configuration is misspelt, out of range or contradicts itself."""


class DataError(BinwatchError):
    """Photos or their index cannot be used for training."""


class PrepareError(BinwatchError):
    """Photos cannot be fetched or written. What is there already is whole: the same command continues."""


class DiskError(BinwatchError):
    """A file or folder cannot be written: there is no room, or no permission."""


class WeightsError(BinwatchError):
    """Starting weights are missing or belong to another network."""


class CheckpointError(BinwatchError):
    """A checkpoint is missing, damaged or of another configuration."""


class DivergedError(BinwatchError):
    """The loss of a run is not a number any more: it learns nothing from then on."""


class RankError(BinwatchError):
    """One of several processes of a run failed, and so the run."""


class TuneError(BinwatchError):
    """A search for options was interrupted. What was found is stored: the same command continues."""


class ExportError(BinwatchError):
    """An exported model differs too much from the one that was trained."""


class PromotionError(BinwatchError):
    """A model is not put in use: it is not better than the one in use, or there is none to go back to."""
