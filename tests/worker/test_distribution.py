"""Bundles that distinguish more quantities than the seven classes: worker output and records."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from binwatch.bundle import Bundle, write_card
from binwatch.counts import MORE_THAN_5, CountRule, class_probabilities
from binwatch.errors import BundleError
from binwatch.settings import Settings
from testing.brightness import brightness_of, jpeg, probabilities_of, write_brightness_bundle
from tests.worker.test_count_command import Count, count  # noqa: F401 (a fixture)
from worker.engine import Engine
from worker.inference_sessions import ModelOutput
from worker.metrics import WorkerMetrics
from worker.new_counts import new_count
from worker.pipeline import Prediction, infer_photos
from worker.sagemaker.serving.answers import Answer
from worker.sagemaker.serving.counter import PhotoCounter

HIGHEST = 20
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle(write_brightness_bundle(tmp_path_factory.mktemp("wide"), highest=HIGHEST))


def predicted(engine: Engine, brightness: int) -> Prediction:
    (result,) = infer_photos(engine, [np.full((224, 224, 3), brightness, np.uint8)])
    assert isinstance(result, Prediction)
    return result


@pytest.mark.parametrize("items", [0, 3, 5, 6, 17, HIGHEST + 1])
def test_class_probabilities_derive_from_the_distribution(bundle: Bundle, items: int) -> None:
    brightness = brightness_of(items, HIGHEST)
    result = predicted(Engine(bundle), brightness)
    assert result.distribution == pytest.approx(probabilities_of(brightness, HIGHEST), abs=1e-5)
    assert np.argmax(result.distribution) == items
    assert sum(result.distribution or []) == pytest.approx(1, abs=1e-5)
    assert result.probabilities == pytest.approx(class_probabilities(np.array(result.distribution)).tolist(), abs=1e-5)
    assert result.predicted == min(items, MORE_THAN_5)


@dataclass
class Undecided:
    """Predicts 4 to 8 items: 4 is the most probable number, "more than 5" the most probable class, 5 the median."""

    rule: CountRule

    def infer(self, photos: np.ndarray) -> ModelOutput:
        numbers = np.zeros((len(photos), HIGHEST + 2), np.float32)
        numbers[:, 4:9] = 0.3, 0.25, 0.2, 0.15, 0.1
        return ModelOutput(numbers, np.zeros((len(photos), 1), np.float32), self.rule)


@pytest.mark.parametrize(
    ("rule", "items", "confidence"), [(CountRule.MODE, MORE_THAN_5, 0.45), (CountRule.MEDIAN, 5, 0.25)]
)
def test_count_follows_the_count_rule(rule: CountRule, items: int, confidence: float) -> None:
    (result,) = infer_photos(Undecided(rule), [np.zeros((224, 224, 3), np.uint8)])
    assert isinstance(result, Prediction)
    assert result.predicted == items
    assert result.confidence == pytest.approx(confidence)
    assert result.distribution is not None
    assert np.argmax(result.distribution) == 4


def test_card_names_the_count_rule(bundle: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle.folder, tmp_path / "median")
    write_card(folder, bundle.card.model_copy(update={"count_rule": CountRule.MEDIAN}))
    photos = np.full((1, 224, 224, 3), brightness_of(3, HIGHEST), np.uint8)
    assert [Engine(Bundle(each)).infer(photos).rule for each in (bundle.folder, folder)] == ["mode", "median"]


def test_records_store_classes_and_distribution(bundle: Bundle) -> None:
    engine = Engine(bundle)
    answer = predicted(engine, brightness_of(9, HIGHEST))
    new = new_count(engine, answer, bucket="b", key="1.jpg", etag="e", modified_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert (new.predicted, new.probabilities) == (MORE_THAN_5, answer.probabilities)
    assert new.distribution is not None
    assert np.argmax(new.distribution) == 9


def test_container_returns_classes_and_distribution(bundle: Bundle, settings: Settings) -> None:
    counter = PhotoCounter(Engine(bundle), settings, WorkerMetrics())
    try:
        answer = asyncio.run(counter.count(jpeg(brightness_of(12, HIGHEST))))
    finally:
        counter.close()
    result = Answer.model_validate_json(answer.to_json())
    assert result.distribution is not None
    assert (np.argmax(result.distribution), result.count) == (12, "more than 5")
    assert result.probabilities == pytest.approx(class_probabilities(np.array(result.distribution)).tolist(), abs=1e-5)


def test_command_prints_classes_and_distribution(bundle: Bundle, count: Count, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "1.jpg").write_bytes(jpeg(brightness_of(2, HIGHEST)))
    (line,) = json.loads(count("--json", tmp_path / "1.jpg", BINWATCH_MODEL_DIR=str(bundle.folder)).stdout)
    assert line["count"] == "2"
    assert np.argmax(line["distribution"]) == 2
    assert len(line["probabilities"]) == 7


def test_old_bundle_has_classes_only(brightness_bundle: Path, tmp_path: Path) -> None:
    card = json.loads((brightness_bundle / "card.json").read_text(encoding="utf-8"))
    del card["highest"]
    (tmp_path / "card.json").write_text(json.dumps(card), encoding="utf-8")
    (tmp_path / "model-int8.onnx").write_bytes((brightness_bundle / "model-int8.onnx").read_bytes())
    result = predicted(Engine(Bundle(tmp_path)), brightness_of(4))
    assert (result.predicted, result.distribution) == (4, None)
    assert result.probabilities == pytest.approx(probabilities_of(brightness_of(4)), abs=1e-5)
    assert Bundle(ROOT / "samples" / "model").card.highest >= 5


def test_card_contradicts_the_onnx_file(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "model-int8.onnx").write_bytes((bundle.folder / "model-int8.onnx").read_bytes())
    write_card(tmp_path, bundle.card.model_copy(update={"highest": 30}))
    with pytest.raises(BundleError, match=r"promises 'probabilities' as tensor\(float\) \(batch, 32\)"):
        Engine(Bundle(tmp_path))
