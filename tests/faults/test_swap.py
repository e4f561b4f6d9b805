"""Test of promoting a model while photos are counted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select

from binwatch.objects import Objects
from binwatch.records.tables import Count
from binwatch.registry import CurrentModel, Registry
from testing.brightness import write_brightness_bundle
from tests.faults.conftest import Took
from tests.faults.stack import TIMEOUT_S, Stack

PHOTOS = 300
LATER_PHOTOS = 20
POLL_S = 5


def test_model_promoted_under_load(stack: Stack, took: Took, tmp_path: Path) -> None:
    """The same process uses the model within 60 s, no photo fails, and each record names its model."""
    stack.settings = stack.settings.model_copy(update={"model_poll_s": POLL_S, "model_settle_s": 0})
    stack.publish([stack.photo(n) for n in range(PHOTOS)])
    stack.start()
    stack.wait_until(lambda: stack.recorded() >= 30)
    promote(stack, write_brightness_bundle(tmp_path / "v2", "v2"))
    assert TIMEOUT_S <= 60
    seconds = stack.wait_until(lambda: is_model_in_use(stack, "v2"))
    later = range(len(stack.counted), len(stack.counted) + LATER_PHOTOS)
    stack.publish([stack.photo(n) for n in later])
    stack.settle()
    stack.check()
    models = models_of(stack)
    assert {models[f"bin-images/{n:05}.jpg"] for n in later} == {"v2"}
    assert set(models.values()) == {"brightness-1", "v2"}
    took(f"in use {seconds:.1f} s after it was promoted (BINWATCH_MODEL_POLL_S={POLL_S}); no photo failed")


def promote(stack: Stack, bundle: Path) -> None:
    registry = Registry(Objects(stack.settings), stack.s3.bucket, stack.settings.models_prefix)
    registry.publish(bundle)
    registry.set_current(CurrentModel(version=bundle.name, promoted=datetime.now(UTC)), registry.current())


def is_model_in_use(stack: Stack, version: str) -> bool:
    """Whether a record names the model. If not, another photo is announced."""
    if version in models_of(stack).values():
        return True
    stack.publish([stack.photo(len(stack.counted))])
    return False


def models_of(stack: Stack) -> dict[str, str]:
    with stack.records.connect() as connection:
        return {row.key: row.model_version for row in connection.execute(select(Count.key, Count.model_version))}
