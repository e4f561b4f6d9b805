"""The search spaces of `tune` as SageMaker's parameter ranges, so that there is one definition of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from optuna.trial import Trial

from trainer.errors import ConfigError
from trainer.train.tune import SPACES

Ranges = dict[str, list[dict[str, Any]]]
INTEGERS = "IntegerParameterRanges"


class _Asked:
    """What a space searches: stands for the value, so that it is seen which option it goes to."""

    def __init__(self, kind: str, **found: Any) -> None:
        self.kind = kind
        self.found = found


class _Recorder:
    """An optuna Trial that chooses nothing and remembers what it was asked for."""

    def suggest_float(self, _: str, low: float, high: float, *, log: bool = False) -> _Asked:
        return _Asked("ContinuousParameterRanges", **_between(low, high, log=log))

    def suggest_int(self, _: str, low: int, high: int, *, log: bool = False) -> _Asked:
        return _Asked(INTEGERS, **_between(low, high, log=log))

    def suggest_categorical(self, _: str, choices: Sequence[object]) -> _Asked:
        return _Asked("CategoricalParameterRanges", Values=[str(choice) for choice in choices])


def ranges(preset: str) -> tuple[Ranges, dict[str, str]]:
    """What a preset searches, and the options that it fixes. Raises ConfigError."""
    if preset not in SPACES:
        raise ConfigError(f"tuning.preset: {preset!r}; choose from {', '.join(SPACES)}")
    chosen = SPACES[preset](cast(Trial, _Recorder()))
    searched: Ranges = {}
    for option, value in chosen.items():
        if isinstance(value, _Asked):
            searched.setdefault(value.kind, []).append({"Name": option, **value.found})
    return searched, {option: str(value) for option, value in chosen.items() if not isinstance(value, _Asked)}


def _between(low: float, high: float, *, log: bool) -> dict[str, str]:
    return {"MinValue": str(low), "MaxValue": str(high), "ScalingType": "Logarithmic" if log else "Linear"}
