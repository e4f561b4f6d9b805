"""A promoted model is used without a restart, and each record names its model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from binwatch import self_check
from binwatch.bundle import Bundle, write_card
from binwatch.counts import CLASSES
from binwatch.errors import ObjectsError
from binwatch.events import ObjectCreated
from binwatch.records.store import Store
from binwatch.records.tables import Count, Model
from binwatch.registry import CurrentModel, Registry
from binwatch.settings import Settings
from testing.brightness import write_brightness_bundle
from testing.services.s3 import S3
from worker.counting import Counting

PHOTO = (Path(__file__).parent.parent.parent / "samples" / "bin-images" / "00184.jpg").read_bytes()


@pytest.fixture
def counting(settings: Settings, tmp_path: Path) -> Iterator[Counting]:
    polling = settings.model_copy(update={"model_poll_s": 0.05, "model_cache": tmp_path / "cache"})
    counting = Counting(polling)
    yield counting
    counting.close()


def promote(counting: Counting, s3: S3, folder: Path, version: str) -> None:
    registry = Registry(counting.objects, s3.bucket, "models/")
    registry.publish(write_brightness_bundle(folder / version, version))
    registry.set_current(CurrentModel(version=version, promoted=datetime.now(UTC)), registry.current())


def wait_for(counting: Counting, version: str) -> None:
    deadline = time.monotonic() + 20
    while counting.models.engine.card.version != version:
        assert time.monotonic() < deadline, f"{version} was not loaded"
        time.sleep(0.01)


def count(counting: Counting, s3: S3, key: str) -> None:
    s3.put(key, PHOTO)
    assert counting.count([ObjectCreated(s3.bucket, key)]) == []


def models_of(counting: Counting) -> list[tuple[str, str]]:
    with counting.database.connect() as connection:
        rows = connection.execute(select(Count.key, Count.model_version).order_by(Count.id))
        return [(key, version) for key, version in rows]


def test_promoted_model_counts_the_next_photo(counting, s3, tmp_path):
    counting.models.start()
    count(counting, s3, "a.jpg")
    promote(counting, s3, tmp_path, "v2")
    wait_for(counting, "v2")
    count(counting, s3, "b.jpg")
    assert models_of(counting) == [("a.jpg", "brightness-1"), ("b.jpg", "v2")]


def recorded_models(counting: Counting) -> set[str]:
    with counting.database.connect() as connection:
        return set(connection.execute(select(Model.model_version)).scalars())


def test_model_is_recorded_before_its_first_photo(counting, s3, tmp_path):
    """Metrics of the first and of each promoted model must start at 0."""
    assert recorded_models(counting) == set()
    counting.note_model()
    assert recorded_models(counting) == {"brightness-1"}
    promote(counting, s3, tmp_path, "v2")
    counting.models.poll()
    assert recorded_models(counting) == {"brightness-1", "v2"}


def test_promoted_model_is_recorded_before_use(counting, s3, tmp_path):
    promote(counting, s3, tmp_path, "v2")
    slow = counting.models._settings.model_copy(update={"model_settle_s": 600.0})
    counting.models._settings = slow
    counting.models.start()
    deadline = time.monotonic() + 20
    while "v2" not in recorded_models(counting):
        assert time.monotonic() < deadline, "v2 was not noted"
        time.sleep(0.01)  # polling interval
    assert counting.models.engine.card.version == "brightness-1"
    counting.models.stop()
    assert not counting.models._thread.is_alive()
    assert counting.models.engine.card.version == "brightness-1"


def test_rollback_needs_no_wait(counting, s3, tmp_path):
    """The counters of the previous model have already been scraped."""
    Store(counting.database).use_model("v2", None)
    with counting.database.begin() as connection:
        connection.execute(update(Model).values(first_at=datetime.now(UTC) - timedelta(hours=1)))
    promote(counting, s3, tmp_path, "v2")
    counting.models._settings = counting.models._settings.model_copy(update={"model_settle_s": 600.0})
    counting.models.poll()
    assert counting.models.engine.card.version == "v2"


def test_no_swap_without_records(counting, s3, tmp_path, monkeypatch, caplog):
    promote(counting, s3, tmp_path, "v2")

    def away(_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("the database is away"))

    with monkeypatch.context() as patch:
        patch.setattr(counting.models, "_record_model", away)
        counting.models.poll()
    assert counting.models.engine.card.version == "brightness-1"
    assert "the promoted model cannot be added to the records" in caplog.text
    counting.models.poll()
    assert counting.models.engine.card.version == "v2"


def test_worker_starts_with_the_promoted_model(counting, settings, s3, tmp_path):
    promote(counting, s3, tmp_path, "v2")
    second = Counting(settings.model_copy(update={"model_cache": tmp_path / "cache"}))
    assert second.models.engine.card.version == "v2"
    second.close()


def test_unusable_model_leaves_the_old_one_in_use(counting, s3, tmp_path, caplog):
    promote(counting, s3, tmp_path, "v2")
    s3.put("models/v2/model-int8.onnx", b"damaged")
    counting.models.poll()
    assert counting.models.engine.card.version == "brightness-1"
    assert "SHA-256" in caplog.text
    assert "brightness-1 stays in use" in caplog.text


def test_mislabeled_model_is_loaded_once(counting, s3, tmp_path, caplog):
    promote(counting, s3, tmp_path, "v2")
    counting.models.poll()
    engine = counting.models.engine
    for name in ("model-int8.onnx", "card.json"):  # as operators do by hand
        s3.client.copy_object(Bucket=s3.bucket, Key=f"models/v3/{name}", CopySource=f"{s3.bucket}/models/v2/{name}")
    s3.put("models/current.json", CurrentModel(version="v3", promoted=datetime.now(UTC)).model_dump_json().encode())
    counting.models.poll()
    assert counting.models.engine is engine
    assert "model 'v3': the card in its folder is that of 'v2'" in caplog.text


def test_failed_self_check_leaves_the_old_model_in_use(counting, s3, tmp_path, caplog):
    other = self_check.make_self_check(np.full((4, len(CLASSES)), 1 / len(CLASSES)), np.ones((4, 1)))
    folder = write_brightness_bundle(tmp_path / "v2", "v2")
    card = Bundle(folder).card
    variants = {name: each.model_copy(update={"self_check": other}) for name, each in card.variants.items()}
    write_card(folder, card.model_copy(update={"variants": variants}))
    registry = Registry(counting.objects, s3.bucket, "models/")
    registry.publish(folder)
    registry.set_current(CurrentModel(version="v2", promoted=datetime.now(UTC)), registry.current())
    counting.models.poll()
    assert counting.models.engine.card.version == "brightness-1"
    assert "fails its self-check" in caplog.text
    assert counting.metrics.registry.get_sample_value("binwatch_worker_refused_models_total") == 1


def test_outage_does_not_count_as_refused_model(counting, monkeypatch, caplog):
    def current(_: Registry) -> CurrentModel:
        raise ObjectsError("the store is away")

    monkeypatch.setattr(Registry, "current", current)
    counting.models.poll()
    assert "the store is away" in caplog.text
    assert counting.metrics.registry.get_sample_value("binwatch_worker_refused_models_total") == 0


def test_second_model_adds_a_second_record(counting, s3, tmp_path):
    count(counting, s3, "a.jpg")
    promote(counting, s3, tmp_path, "v2")
    counting.models.poll()
    count(counting, s3, "a.jpg")
    assert models_of(counting) == [("a.jpg", "brightness-1"), ("a.jpg", "v2")]


def test_stop_does_not_wait_for_a_slow_model(counting, monkeypatch):
    fetching, fetched = threading.Event(), threading.Event()

    def look() -> None:
        fetching.set()
        fetched.wait(20)

    monkeypatch.setattr("worker.model_manager.STOP_TIMEOUT_S", 0.01)
    monkeypatch.setattr(counting.models, "poll", look)
    counting.models.start()
    assert fetching.wait(20)
    counting.models.stop()
    assert counting.models._thread.is_alive()
    fetched.set()
