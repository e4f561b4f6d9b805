"""Converts the search spaces of `tune` to the SDK's parameter ranges, so that each is defined only once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from optuna.trial import Trial
from sagemaker.core.parameter import CategoricalParameter, ContinuousParameter, IntegerParameter, ParameterRange

from trainer.errors import ConfigError
from trainer.train.tune import SPACES


class _RangeRecorder:
    """A stand-in for an Optuna trial that returns the range of an option instead of a value."""

    def suggest_float(self, _: str, low: float, high: float, *, log: bool = False) -> ParameterRange:
        return ContinuousParameter(low, high, "Logarithmic" if log else "Linear")

    def suggest_int(self, _: str, low: int, high: int) -> ParameterRange:
        return IntegerParameter(low, high, "Linear")

    def suggest_categorical(self, _: str, choices: Sequence[object]) -> ParameterRange:
        return CategoricalParameter([str(choice) for choice in choices])


def parameter_ranges(preset: str) -> tuple[dict[str, ParameterRange], dict[str, str]]:
    """Return the ranges that a preset searches, and the options that it fixes. Raises ConfigError."""
    if preset not in SPACES:
        raise ConfigError(f"tuning.preset: {preset!r}; choose from {', '.join(SPACES)}")
    options = SPACES[preset](cast(Trial, _RangeRecorder()))
    ranges = {option: value for option, value in options.items() if isinstance(value, ParameterRange)}
    return ranges, {option: str(value) for option, value in options.items() if option not in ranges}
