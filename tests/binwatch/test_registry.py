"""The model registry in a bucket of a real S3 server."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from binwatch.bundle import Bundle, Precision, make_variant, write_card
from binwatch.errors import BundleError, PromotionConflictError
from binwatch.objects import Objects
from binwatch.registry import CurrentModel, Registry
from binwatch.settings import Settings
from testing.brightness import write_brightness_bundle
from testing.services.s3 import S3

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
    registry.set_current(CurrentModel(version="v1", promoted=NOW), registry.current())
    assert registry.current() == CurrentModel(version="v1", promoted=NOW, previous=None, forced=False)


def test_versions_lists_complete_bundles_only(registry, s3, tmp_path):
    publish(registry, tmp_path, "v2")
    publish(registry, tmp_path, "v1")
    s3.put("models/half/model-int8.onnx", b"uploaded, but its card is not")
    registry.set_current(CurrentModel(version="v1", promoted=NOW), registry.current())
    assert registry.versions() == ["v1", "v2"]


def test_a_fetched_bundle_is_the_one_that_was_published(registry, tmp_path):
    published = publish(registry, tmp_path, "v1")
    bundle = registry.fetch("v1", [Precision.INT8], tmp_path / "cache")
    assert bundle.card.version == "v1"
    assert bundle.model_path(Precision.INT8).read_bytes() == (published / "model-int8.onnx").read_bytes()


def test_fetching_a_missing_variant_returns_the_available_ones(registry, tmp_path):
    publish(registry, tmp_path, "v1")
    bundle = registry.fetch("v1", [Precision.FP16], tmp_path / "cache")
    assert bundle.model_path(Precision.INT8).exists()


def test_a_second_fetch_downloads_no_model(registry, s3, tmp_path):
    publish(registry, tmp_path, "v1")
    registry.fetch("v1", [Precision.INT8], tmp_path / "cache")
    s3.client.delete_object(Bucket=s3.bucket, Key="models/v1/model-int8.onnx")
    assert registry.fetch("v1", [Precision.INT8], tmp_path / "cache").model_path(Precision.INT8).exists()


def test_a_damaged_model_is_refused_and_removed_from_the_cache(registry, s3, tmp_path):
    published = publish(registry, tmp_path, "v1")
    s3.put("models/v1/model-int8.onnx", b"damaged")
    with pytest.raises(BundleError, match="SHA-256"):
        registry.fetch("v1", [Precision.INT8], tmp_path / "cache")
    s3.put("models/v1/model-int8.onnx", (published / "model-int8.onnx").read_bytes())
    assert registry.fetch("v1", [Precision.INT8], tmp_path / "cache").model_path(Precision.INT8).exists()


def test_a_version_cannot_be_published_with_different_content(registry, tmp_path):
    bundle = publish(registry, tmp_path, "v1")
    assert registry.publish(bundle).version == "v1"  # publishing the same bundle again is allowed
    card = json.loads((bundle / "card.json").read_text())
    (bundle / "card.json").write_text(json.dumps(card | {"temperature": 2.0}))
    with pytest.raises(BundleError, match="'v1' exists and is another one"):
        registry.publish(bundle)


def test_an_unknown_version_cannot_be_promoted(registry):
    with pytest.raises(BundleError, match="model 'v9'"):
        registry.set_current(CurrentModel(version="v9", promoted=NOW), registry.current())
    assert registry.current() is None


def before_write(registry: Registry, key: str, act: Callable[[], object]) -> None:
    """Call `act` once, after `registry` has read and right before it writes `key`."""
    done: list[bool] = []

    def hook(request: AWSPreparedRequest, **_: object) -> None:
        if not done and request.url.endswith(key):
            done.append(True)
            act()

    registry._objects._client.meta.events.register("before-send.s3.PutObject", hook)


def test_one_of_two_concurrent_promotions_fails(registry, s3, tmp_path):
    for version in ("v1", "v2", "v3"):
        publish(registry, tmp_path, version)
    first, other = CurrentModel(version="v1", promoted=NOW), CurrentModel(version="v2", promoted=NOW, previous="v1")
    registry.set_current(first, None)
    second = Registry(Objects(Settings(s3_endpoint_url=s3.endpoint_url)), s3.bucket, "models/")
    before_write(registry, "current.json", lambda: second.set_current(other, first))
    with pytest.raises(PromotionConflictError, match="v2 was put in use meanwhile, by someone else"):
        registry.set_current(CurrentModel(version="v3", promoted=NOW, previous="v1"), first)
    assert registry.current() == other


def test_one_of_two_concurrent_first_promotions_fails(registry, s3, tmp_path):
    publish(registry, tmp_path, "v1")
    publish(registry, tmp_path, "v2")
    second = Registry(Objects(Settings(s3_endpoint_url=s3.endpoint_url)), s3.bucket, "models/")
    before_write(registry, "current.json", lambda: second.set_current(CurrentModel(version="v2", promoted=NOW), None))
    with pytest.raises(PromotionConflictError):
        registry.set_current(CurrentModel(version="v1", promoted=NOW), None)
    assert registry.current().version == "v2"


def test_a_concurrent_withdrawal_is_detected(registry, s3, tmp_path):
    publish(registry, tmp_path, "v1")
    publish(registry, tmp_path, "v2")
    first = CurrentModel(version="v1", promoted=NOW)
    registry.set_current(first, None)
    before_write(registry, "current.json", lambda: s3.client.delete_object(Bucket=s3.bucket, Key="models/current.json"))
    with pytest.raises(PromotionConflictError, match=r"current\.json was deleted meanwhile"):
        registry.set_current(CurrentModel(version="v2", promoted=NOW), first)


def other_bundle(folder: Path, version: str) -> Path:
    """Write a different bundle with the same version."""
    made = write_brightness_bundle(folder / "other", version)
    file = made / "model-int8.onnx"
    model = onnx.load(file)
    model.doc_string = "another one"
    onnx.save(model, file)
    card = Bundle(made).card
    write_card(made, card.model_copy(update={"variants": {Precision.INT8: make_variant(file)}}))
    return made


@pytest.mark.parametrize("key", ["model-int8.onnx", "card.json"])
def test_concurrently_published_bundles_do_not_mix(registry, s3, tmp_path, key):
    first, second_bundle = write_brightness_bundle(tmp_path / "one", "v1"), other_bundle(tmp_path, "v1")
    second = Registry(Objects(Settings(s3_endpoint_url=s3.endpoint_url)), s3.bucket, "models/")
    if key == "model-int8.onnx":  # the other publisher finishes first
        before_write(registry, key, lambda: second.publish(second_bundle))
        with pytest.raises(BundleError, match=r"model-int8\.onnx exists already and belongs to another bundle"):
            registry.publish(first)
    else:

        def publish_other() -> None:
            with pytest.raises(BundleError, match="someone is publishing model 'v1' now, or was interrupted"):
                second.publish(second_bundle)

        before_write(registry, key, publish_other)
        registry.publish(first)
    fetched = registry.fetch(
        "v1", [Precision.INT8], tmp_path / "cache"
    )  # raises if card and file belong to different bundles
    assert fetched.card == Bundle(second_bundle if key == "model-int8.onnx" else first).card


def test_an_interrupted_publish_can_be_continued(registry, s3, tmp_path):
    bundle = write_brightness_bundle(tmp_path / "v1", "v1")
    s3.put("models/v1/model-int8.onnx", (bundle / "model-int8.onnx").read_bytes())
    assert registry.publish(bundle).version == "v1"
    assert registry.versions() == ["v1"]


def test_concurrent_notes_are_both_kept(registry, s3, tmp_path):
    publish(registry, tmp_path, "v1")
    second = Registry(Objects(Settings(s3_endpoint_url=s3.endpoint_url)), s3.bucket, "models/")
    before_write(registry, "card.json", lambda: second.annotate("v1", "Two."))
    registry.annotate("v1", "One.")
    assert registry.card("v1").notes == ["Two.", "One."]


def test_a_folder_with_the_card_of_another_version_is_not_a_model(registry, s3, tmp_path):
    publish(registry, tmp_path, "v1")
    for name in ("model-int8.onnx", "card.json"):
        s3.client.copy_object(Bucket=s3.bucket, Key=f"models/v2/{name}", CopySource=f"{s3.bucket}/models/v1/{name}")
    with pytest.raises(BundleError, match="model 'v2': the card in its folder is that of 'v1'"):
        registry.set_current(CurrentModel(version="v2", promoted=NOW), None)
    with pytest.raises(BundleError, match="the card in its folder is that of 'v1'"):
        registry.fetch("v2", [Precision.INT8], tmp_path / "cache")


def answer_conditions(registry: Registry, status: int, code: str) -> None:
    """Simulate a store that refuses every conditional write, regardless of the condition."""

    def hook(request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        if not {"If-Match", "If-None-Match"} & set(request.headers):
            return None
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        raw = SimpleNamespace(stream=lambda *_, **__: iter([body]), read=lambda *_: body)
        return AWSResponse(request.url, status, {}, raw)

    registry._objects._client.meta.events.register("before-send.s3.PutObject", hook)


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (412, "PreconditionFailed")])
def test_a_store_without_conditional_writes_is_used_with_a_warning(registry, s3, tmp_path, caplog, status, code):
    """Old servers do not support conditions; some compare quoted ETags, so that no condition is ever met."""
    answer_conditions(registry, status, code)
    publish(registry, tmp_path, "v1")
    publish(registry, tmp_path, "v2")
    first, second = CurrentModel(version="v1", promoted=NOW), CurrentModel(version="v2", promoted=NOW)
    registry.set_current(first, None)
    registry.set_current(second, first)
    registry.annotate("v2", "Seen.")
    assert registry.current() == second
    assert registry.card("v2").notes == ["Seen."]
    assert f"models/current.json: written without a condition: the store refuses it ({code})" in caplog.text
    with pytest.raises(PromotionConflictError):  # conflicts visible before the write are still detected
        registry.set_current(first, first)
    with pytest.raises(BundleError, match="exists and is another one"):
        registry.publish(other_bundle(tmp_path, "v1"))


def test_a_retried_write_is_not_a_conflict(registry, s3, tmp_path):
    """If the response is lost, the client retries, and its own first write violates the condition."""
    publish(registry, tmp_path, "v1")
    promoted = CurrentModel(version="v1", promoted=NOW)
    before_write(
        registry, "current.json", lambda: s3.put("models/current.json", promoted.model_dump_json(indent=2).encode())
    )
    registry.set_current(promoted, None)
    assert registry.current() == promoted


def test_a_damaged_current_json_is_named(registry, s3):
    s3.put("models/current.json", b"{}")
    with pytest.raises(BundleError, match=f"s3://{s3.bucket}/models/current.json is damaged"):
        registry.current()


def test_a_note_is_added_to_a_published_card(registry, tmp_path):
    bundle = publish(registry, tmp_path, "v1")
    registry.annotate("v1", "One.")
    registry.annotate("v1", "Two.")
    assert registry.card("v1").notes == ["One.", "Two."]
    assert registry.publish(bundle).version == "v1"  # notes do not change the identity of the model
