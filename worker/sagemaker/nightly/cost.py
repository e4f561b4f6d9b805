"""The cost of a run: instance seconds from the start of each job to its end, at the price in the settings."""

from __future__ import annotations

from binwatch.settings import Settings
from binwatch.text import count_noun
from worker.sagemaker.nightly.run_store import NightlyRun

_MIN_HOURS = 0.1
"""Shortest duration that is given in hours instead of seconds."""
_MIN_MEASURED_PHOTOS = 1000
"""Minimum number of photos of a run whose speed is used. In shorter runs, the instance's start takes most of the time.
"""


def photos_per_second(settings: Settings, last: NightlyRun | None) -> float:
    """Return the photos that one instance counts per second.

    It is the measured speed of the last run if that was long enough and used the same instance type, else the
    setting's.
    """
    if last is not None and last.outcome is not None and last.instance_type == settings.sagemaker.instance_type:
        outcome = last.outcome
        if outcome.recorded >= _MIN_MEASURED_PHOTOS and outcome.instance_seconds:
            return outcome.recorded / outcome.instance_seconds
    return settings.sagemaker.photos_per_second


def cost_text(settings: Settings, instance_seconds: float) -> str:
    """Return the instance time as text, with its cost if the price is known."""
    hours = instance_seconds / 3600
    duration = f"{hours:.2f} hours" if hours >= _MIN_HOURS else f"{instance_seconds:.0f} s"
    text = f"{duration} of {settings.sagemaker.instance_type}"
    price = settings.sagemaker.price_per_hour
    return f"{text}, {hours * price:.2f} at {price:g} an hour" if price else text


def estimate_text(settings: Settings, sagemaker_photos: int, local_photos: int, rate: float) -> str:
    """Return a run's estimated cost as text, at `rate` photos per second and instance."""
    return (
        f"{count_noun(sagemaker_photos, 'photo')} for SageMaker, {local_photos:,} for local workers; about"
        f" {cost_text(settings, sagemaker_photos / rate)}, if it counts {rate:.1f} photos/s"
    )
