"""Tests of a nightly run's cost estimate, and of which photos are sent to SageMaker."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from binwatch.objects import ListedObject
from binwatch.settings import Settings
from worker.sagemaker.nightly import cost
from worker.sagemaker.nightly.plan import can_be_sent
from worker.sagemaker.nightly.run_paths import paths_of
from worker.sagemaker.nightly.run_store import NightlyRun, RunOutcome


def test_estimate_uses_measured_speed(settings: Settings) -> None:
    outcome = RunOutcome(recorded=7200, local=3, instance_seconds=144.0)
    run = NightlyRun(
        number=1,
        token="t",
        started=datetime.now(UTC),
        model="m",
        sagemaker_model="b",
        instance_type=settings.sagemaker.instance_type,
        instance_count=1,
        photos_per_second=20.0,
        parts=(),
        outcome=outcome,
    )
    assert cost.photos_per_second(settings, run) == 50.0
    assert cost.photos_per_second(settings, None) == 20.0
    small = run.model_copy(update={"outcome": outcome.model_copy(update={"recorded": 999})})
    assert cost.photos_per_second(settings, small) == 20.0
    other = run.model_copy(update={"instance_type": "ml.g5.xlarge"})
    assert cost.photos_per_second(settings, other) == 20.0
    text = cost.estimate_text(settings, sagemaker_photos=180_000, local_photos=5, rate=50.0)
    assert text == (
        "180,000 photos for SageMaker, 5 for local workers; about 1.00 hours of ml.m5.xlarge, 0.23 at 0.23 an hour,"
        " if it counts 50.0 photos/s"
    )


@pytest.mark.parametrize(
    ("key", "size", "sent"),
    [
        ("bin-images/00001.jpg", 0, True),
        ("bin-images/00001.jpg", 6_000_000, True),
        ("bin-images/00001.jpg", 6_000_001, False),
        ("a(1)_!*'.jpg", 1, True),
        ("a b.jpg", 1, False),
        ("ü.jpg", 1, False),
        ("a//b.jpg", 1, False),
        ("/a.jpg", 1, False),
        ("a/../b.jpg", 1, False),
        ("a/..b.jpg", 1, True),
        ("a+b.jpg", 1, False),
        ("a\n.jpg", 1, False),
        (f"{'a' * 900}.jpg", 1, True),
        (f"{'a' * 1000}.jpg", 1, False),
    ],
)
def test_photos_sent_to_sagemaker(settings: Settings, key: str, size: int, sent: bool) -> None:
    photo = ListedObject(key, "e", size, datetime.now(UTC))
    assert can_be_sent(photo, settings, paths_of(settings, "20260101-01234567")) is sent
