"""SageMaker's cost: instances by the second, from a job's start to its end, at the price in the settings."""

from __future__ import annotations

from binwatch.settings import Settings
from binwatch.text import count_noun
from worker.sagemaker.nightly.run_store import NightlyRun

_HOUR = 3600
_TENTH = 0.1
"""Hours below which the duration is given in seconds."""
_ENOUGH = 1000
"""Smallest number of photos of a run whose speed is used: of fewer, the instance's start takes most of the time."""


def photos_per_second(settings: Settings, before: NightlyRun | None) -> float:
    """Photos that one instance counts per second: measured in the last run on the same instance type, else as set."""
    outcome = before.outcome if before is not None else None
    if before is None or outcome is None or before.instance_type != settings.sagemaker.instance_type:
        return settings.sagemaker.photos_per_second
    if outcome.recorded < _ENOUGH or not outcome.instance_seconds:
        return settings.sagemaker.photos_per_second
    return outcome.recorded / outcome.instance_seconds


def in_words(settings: Settings, instance_seconds: float) -> str:
    """Instance time, and money if the price is known."""
    hours = instance_seconds / _HOUR
    time = f"{hours:.2f} hours" if hours >= _TENTH else f"{instance_seconds:.0f} s"
    words = f"{time} of {settings.sagemaker.instance_type}"
    price = settings.sagemaker.price_per_hour
    return f"{words}, {hours * price:.2f} at {price:g} an hour" if price else words


def estimate(settings: Settings, *, sent: int, kept: int, rate: float) -> str:
    """Estimated cost in words, at `rate` photos per second and instance, of a run that has not started."""
    spent = in_words(settings, sent / rate)
    who = f"{count_noun(sent, 'photo')} for SageMaker, {kept:,} for local workers"
    return f"{who}; about {spent}, if it counts {rate:.1f} photos/s"
