"""Bundles and their cards: validation, checksums and writing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from binwatch.bundle import (
    CARD_FILE,
    Bundle,
    Card,
    Estimate,
    Metrics,
    Precision,
    Reference,
    make_variant,
    sha256_of,
    write_card,
)
from binwatch.counts import CLASSES
from binwatch.errors import BundleError


def estimate(value: float = 0.5) -> Estimate:
    return Estimate(value=value, low=0.4, high=0.6)


def full_card(folder: Path) -> Card:
    """Return a card with every field set, for files in `folder`."""
    for name in ("model.onnx", "model.int8.onnx"):
        (folder / name).write_bytes(name.encode() * 100)
    metrics = Metrics(
        photos=7,
        accuracy=estimate(),
        rmse=estimate(1 / 3),
        mae=estimate(),
        within_one=estimate(),
        ece=estimate(),
        majority_accuracy=0.25,
        per_class={"0": {"photos": 3, "recall": 0.1, "precision": 0.2}},
        confusion=[[1] * 7] * 7,
    )
    reference = Reference(
        photos=3, predicted=[1] * 7, labels=[2] * 7, confidence=[i / 10 for i in range(11)], extra={"mean": [0.5]}
    )
    return Card(
        version="2026-11-20.1",
        architecture="resnet50",
        created=datetime(2026, 11, 20, tzinfo=UTC),
        embedding_size=64,
        temperature=1.25,
        variants={
            Precision.FP32: make_variant(folder / "model.onnx"),
            Precision.INT8: make_variant(folder / "model.int8.onnx", {"accuracy": 0.5}),
        },
        metrics={"test": metrics},
        reference=reference,
        training={"epochs": 3, "data": "Käfige 📦"},
        notes=["a note"],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a valid bundle."""
    write_card(tmp_path, full_card(tmp_path))
    return tmp_path


def _edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    change(card)
    (folder / CARD_FILE).write_text(json.dumps(card), encoding="utf-8")


def _refused(folder: Path) -> str:
    with pytest.raises(BundleError) as refused:
        Bundle(folder)
    assert str(folder / CARD_FILE) in str(refused.value)
    return str(refused.value)


def test_round_trip(folder: Path) -> None:
    bundle = Bundle(folder)
    assert bundle.card == full_card(folder)
    assert bundle.model_path(Precision.FP32) == folder / "model.onnx"
    assert bundle.model_path(Precision.INT8) == folder / "model.int8.onnx"
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "model.int8.onnx", "model.onnx"]


def test_describe(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"abc")
    variant = make_variant(path, {"accuracy": 1})
    assert (variant.file, variant.bytes, variant.metrics) == ("model.onnx", 3, {"accuracy": 1})
    assert variant.sha256 == sha256_of(path) == hashlib.sha256(b"abc").hexdigest()


def test_the_card_is_replaced_atomically(folder: Path) -> None:
    card = full_card(folder).model_copy(update={"version": "next"})
    assert write_card(folder, card) == folder / CARD_FILE
    assert Bundle(folder).card.version == "next"


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    message = _refused(tmp_path / "none")
    assert "cannot be read (No such file or directory); name a folder with a model bundle" in message


def test_a_missing_card_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in _refused(tmp_path)


def test_a_file_instead_of_a_bundle_folder_is_refused(folder: Path) -> None:
    assert "Not a directory" in _refused(folder / "model.onnx")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "not JSON", "[" * 10_000], ids=lambda text: text[:8])
def test_a_card_that_is_not_a_json_object_is_refused(folder: Path, text: str) -> None:
    (folder / CARD_FILE).write_text(text)
    assert "the file: " in _refused(folder)


def test_a_binary_card_is_refused(folder: Path) -> None:
    (folder / CARD_FILE).write_bytes(b"\xff\xfe\x00\x80")
    assert "is not UTF-8 text" in _refused(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda card: card.update(colour="red"), "colour: Extra inputs are not permitted"),
        (lambda card: card["variants"]["int8"].update(url="x"), "variants.int8.url: Extra inputs"),
        (lambda card: card["metrics"]["test"]["mae"].update(median=1), "metrics.test.mae.median: Extra inputs"),
        (lambda card: card.pop("version"), "version: Field required"),
        (lambda card: card.pop("variants"), "variants: Field required"),
        (lambda card: card.update(variants={}), "variants: "),
        (lambda card: card.update(schema_version=2), "schema_version: "),
        (lambda card: card.update(temperature=0), "temperature: "),
        (lambda card: card.update(count_rule="mean"), "count_rule: Input should be 'mode' or 'median'"),
        (lambda card: card.update(embedding_size=-1), "embedding_size: "),
        (lambda card: card.update(created="2026-11-20T00:00:00"), "created: "),
        (lambda card: card.update(version="../evil"), "version: "),
        (lambda card: card.update(version="v" * 101), "version: "),
        (lambda card: card["variants"].update(fp64=card["variants"]["fp32"]), "variants.fp64"),
        (lambda card: card["variants"]["int8"].update(sha256="ABC"), "variants.int8.sha256: "),
        (lambda card: card["variants"]["int8"].update(bytes=0), "variants.int8.bytes: "),
    ],
)
def test_a_card_with_an_invalid_field_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    _edit(folder, change)
    message = _refused(folder)
    assert words in message
    assert message.endswith("; export the bundle again")


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "a/b.onnx", "..", ".hidden", "", "a\\b", "model.onnx\n", "C:model"]
)
def test_files_outside_the_bundle_are_refused(folder: Path, name: str) -> None:
    _edit(folder, lambda card: card["variants"]["int8"].update(file=name))
    assert "variants.int8.file: String should match pattern" in _refused(folder)


@pytest.mark.parametrize("classes", [list(CLASSES[:-1]), ["no", "yes"], list(reversed(CLASSES))])
def test_other_classes_are_refused(folder: Path, classes: list[str]) -> None:
    _edit(folder, lambda card: card.update(classes=classes))
    message = _refused(folder)
    assert repr(classes[0]) in message
    assert "this release counts ('0', '1', '2', '3', '4', '5', 'more than 5'); export the model again" in message


def test_a_missing_variant_is_an_error(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"no fp16 variant in card\.json \(found: fp32, int8\); export it or choose"):
        Bundle(folder).model_path(Precision.FP16)


def test_a_missing_model_file_is_refused(folder: Path) -> None:
    (folder / "model.int8.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.int8\.onnx: named in card\.json but missing"):
        Bundle(folder).model_path(Precision.INT8)
    assert Bundle(folder).model_path(Precision.FP32)


def test_a_folder_instead_of_a_model_file_is_refused(folder: Path) -> None:
    (folder / "model.int8.onnx").unlink()
    (folder / "model.int8.onnx").mkdir()
    with pytest.raises(BundleError, match=r"named in card\.json but missing"):
        Bundle(folder).model_path(Precision.INT8)


@pytest.mark.parametrize("data", [b"", b"model of another bundle", b"model.int8.onnx" * 99])
def test_a_changed_model_file_is_refused(folder: Path, data: bytes) -> None:
    (folder / "model.int8.onnx").write_bytes(data)
    with pytest.raises(BundleError) as refused:
        Bundle(folder).model_path(Precision.INT8)
    message = str(refused.value)
    assert str(folder / "model.int8.onnx") in message
    assert hashlib.sha256(data).hexdigest() in message
    assert hashlib.sha256(b"model.int8.onnx" * 100).hexdigest() in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_figures_are_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        estimate(value)
