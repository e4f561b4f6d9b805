"""Loading of model cards from the configured folder or the bucket, without blocking pages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from binwatch.bundle import Bundle, Card
from binwatch.errors import ObjectsError
from binwatch.objects import Objects
from binwatch.registry import CurrentModel, Registry
from binwatch.settings import Settings
from monitor.cards import RETRY_INTERVAL_S, Cards
from testing.services.s3 import S3
from tests.monitor.drifting import MODEL

WITHIN_S = 20


def _wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # polling interval


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def registry(s3: S3) -> Registry:
    settings = Settings(s3_endpoint_url=s3.endpoint_url, bucket=s3.bucket)
    return Registry(Objects(settings), s3.bucket, settings.models_prefix)


def test_a_configured_local_bundle_needs_no_bucket(bundle: Path) -> None:
    card = Cards(bundle).get(MODEL)
    assert card is not None
    assert card.version == MODEL


def test_the_card_of_a_promoted_model_is_read_from_the_bucket(s3: S3, registry: Registry, bundle: Path) -> None:
    card = Bundle(bundle).card.model_copy(update={"version": "other"})
    s3.put("models/other/card.json", card.model_dump_json().encode())
    registry.set_current(CurrentModel(version="other", promoted=card.created), registry.current())
    cards = Cards(bundle, registry)
    assert cards.get_cached("other") is None, "it is requested in the background"
    _wait_for(lambda: cards.get_cached("other"))
    assert cards.current() is None
    _wait_for(cards.current)
    loaded = cards.current()
    assert loaded is not None
    assert loaded.version == "other"


def test_an_unreachable_bucket_is_retried_once_a_minute(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    requests = threading.Semaphore(0)

    class Down(Registry):
        def __init__(self) -> None:
            pass

        def card(self, version: str) -> Card:
            requests.release()
            raise ObjectsError("no answer")

        def current(self) -> CurrentModel | None:
            requests.release()
            raise ObjectsError("no answer")

    clock = _Clock()
    cards = Cards(bundle, Down(), clock)
    for _ in range(5):
        assert cards.get_cached("other") is None
        assert cards.current() is None
    for _ in range(2):
        assert requests.acquire(timeout=WITHIN_S)
    assert not requests.acquire(blocking=False)
    clock.now += RETRY_INTERVAL_S
    assert cards.get_cached("other") is None
    assert requests.acquire(timeout=WITHIN_S)
    _wait_for(lambda: "the card of model other cannot be read" in caplog.text)
    with pytest.raises(ObjectsError):
        cards.reference("other")


def test_a_model_without_a_bundle_has_no_reference(registry: Registry, bundle: Path) -> None:
    """It is not retried: only a temporarily unavailable bundle is."""
    for cards in (Cards(bundle), Cards(bundle, registry)):
        assert cards.reference("other") is None
        assert cards.reference(MODEL) is not None
