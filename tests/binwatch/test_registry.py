"""Models in a bucket of a real S3 server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from binwatch.bundle import Precision
from binwatch.errors import BundleError
from binwatch.objects import Objects
from binwatch.registry import Current, Registry
from binwatch.settings import Settings
from tests.services.s3 import S3
from tests.worker.brightness import write_brightness_bundle

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def registry(s3: S3) -> Registry:
    return Registry(Objects(Settings(s3_endpoint_url=s3.endpoint_url)), s3.bucket, "models/")


def publish(registry: Registry, folder: Path, version: str) -> Path:
    bundle = write_brightness_bundle(folder / version, version)
    registry.publish(bundle)
    return bundle


def test_no_model_is_in_use_until_one_is_promoted(registry, tmp_path):
    assert registry.current() is None
    publish(registry, tmp_path, "v1")
    assert registry.current() is None
    registry.set_current(Current(version="v1", promoted=NOW))
    assert registry.current() == Current(version="v1", promoted=NOW, previous=None, forced=False)


def test_versions_lists_whole_bundles_only(registry, s3, tmp_path):
    publish(registry, tmp_path, "v2")
    publish(registry, tmp_path, "v1")
    s3.put("models/half/model-int8.onnx", b"uploaded, but its card is not")
    registry.set_current(Current(version="v1", promoted=NOW))
    assert registry.versions() == ["v1", "v2"]


def test_a_fetched_bundle_is_the_one_that_was_published(registry, tmp_path):
    published = publish(registry, tmp_path, "v1")
    bundle = registry.fetch("v1", [Precision.INT8], tmp_path / "cache")
    assert bundle.card.version == "v1"
    assert bundle.model(Precision.INT8).read_bytes() == (published / "model-int8.onnx").read_bytes()


def test_a_variant_that_is_not_there_gives_those_that_are(registry, tmp_path):
    publish(registry, tmp_path, "v1")
    bundle = registry.fetch("v1", [Precision.FP16], tmp_path / "cache")
    assert bundle.model(Precision.INT8).exists()


def test_a_second_fetch_downloads_no_model(registry, s3, tmp_path):
    publish(registry, tmp_path, "v1")
    registry.fetch("v1", [Precision.INT8], tmp_path / "cache")
    s3.client.delete_object(Bucket=s3.bucket, Key="models/v1/model-int8.onnx")
    assert registry.fetch("v1", [Precision.INT8], tmp_path / "cache").model(Precision.INT8).exists()


def test_a_damaged_model_is_refused_and_does_not_stay_in_the_cache(registry, s3, tmp_path):
    published = publish(registry, tmp_path, "v1")
    s3.put("models/v1/model-int8.onnx", b"damaged")
    with pytest.raises(BundleError, match="SHA-256"):
        registry.fetch("v1", [Precision.INT8], tmp_path / "cache")
    s3.put("models/v1/model-int8.onnx", (published / "model-int8.onnx").read_bytes())
    assert registry.fetch("v1", [Precision.INT8], tmp_path / "cache").model(Precision.INT8).exists()


def test_a_version_cannot_be_published_twice_with_other_content(registry, tmp_path):
    bundle = publish(registry, tmp_path, "v1")
    assert registry.publish(bundle).version == "v1"  # the same again does no harm
    card = json.loads((bundle / "card.json").read_text())
    (bundle / "card.json").write_text(json.dumps(card | {"temperature": 2.0}))
    with pytest.raises(BundleError, match="'v1' exists and is another one"):
        registry.publish(bundle)


def test_an_unknown_version_cannot_be_promoted(registry):
    with pytest.raises(BundleError, match="model 'v9'"):
        registry.set_current(Current(version="v9", promoted=NOW))
    assert registry.current() is None


def test_a_damaged_current_json_is_an_error_that_names_it(registry, s3):
    s3.put("models/current.json", b"{}")
    with pytest.raises(BundleError, match=f"s3://{s3.bucket}/models/current.json is damaged"):
        registry.current()


def test_a_note_is_added_to_a_published_card(registry, tmp_path):
    bundle = publish(registry, tmp_path, "v1")
    registry.annotate("v1", "One.")
    registry.annotate("v1", "Two.")
    assert registry.card("v1").notes == ["One.", "Two."]
    assert registry.publish(bundle).version == "v1"  # still the same model
