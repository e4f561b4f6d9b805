"""Loading ahead and batched inference: one result per photo, in order, independent of other photos."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binwatch.bundle import Bundle
from binwatch.counts import CLASSES
from binwatch.errors import PhotoError, Reason
from binwatch.image import Photo
from testing.brightness import probabilities_of
from worker.engine import Engine
from worker.inference_sessions import ModelOutput
from worker.pipeline import Prediction, load_ahead, predict

POISON = 255


@dataclass(frozen=True)
class Item:
    number: int
    photo: Photo | None


class PoisonableEngine:
    """Counts 1 × 1 photos by their red value, and raises if a batch contains poison."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def infer(self, photos: np.ndarray) -> ModelOutput:
        self.batches.append(len(photos))
        levels = photos[:, 0, 0, 0]
        if (levels == POISON).any():
            raise RuntimeError("poison")
        return ModelOutput(np.eye(7, dtype=np.float32)[levels % 7], levels[:, None].astype(np.float32))


def _item(number: int, level: int | None) -> Item:
    if level is None:
        return Item(number, None)
    return Item(number, Photo(np.full((1, 1, 3), level, dtype=np.uint8), 1, 1, "PNG"))


def _items(levels: list[int | None]) -> list[Item]:
    return [_item(number, level) for number, level in enumerate(levels)]


@given(levels=st.lists(st.none() | st.integers(0, 6) | st.just(POISON), max_size=40), batch_size=st.integers(1, 9))
def test_one_result_per_photo(levels: list[int | None], batch_size: int) -> None:
    engine = PoisonableEngine()
    items = _items(levels)
    answers = list(predict(engine, iter(items), batch_size))
    assert [item for item, _ in answers] == items
    for level, (_, answer) in zip(levels, answers, strict=True):
        if level is None:
            assert answer is None
        elif level == POISON:
            assert isinstance(answer, PhotoError)
            assert answer.reason is Reason.INFERENCE_FAILED
        else:
            assert isinstance(answer, Prediction)
            assert (answer.predicted, answer.confidence, answer.embedding.tolist()) == (level, 1.0, [level])
    assert all(size <= batch_size for size in engine.batches)


@pytest.mark.parametrize(
    ("photos", "batches"), [(0, []), (1, [1]), (3, [3]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (9, [4, 4, 1])]
)
def test_batch_boundaries(photos: int, batches: list[int]) -> None:
    engine = PoisonableEngine()
    assert len(list(predict(engine, _items([1] * photos), 4))) == photos
    assert engine.batches == batches


def test_missing_photos_do_not_fill_a_batch() -> None:
    engine = PoisonableEngine()
    levels = [None, 1, None, None, 2, 3, None]
    assert len(list(predict(engine, _items(levels), 3))) == len(levels)
    assert engine.batches == [3]


def test_only_the_poison_photo_fails(caplog: pytest.LogCaptureFixture) -> None:
    engine = PoisonableEngine()
    answers = [answer for _, answer in predict(engine, _items([1, 2, POISON, 4, 5, 6, 0, 1]), 8)]
    failed = [n for n, answer in enumerate(answers) if isinstance(answer, PhotoError)]
    assert failed == [2]
    assert str(answers[2]) == "ONNX Runtime failed on this photo: poison"
    # The batch is halved down to the poison photo; then a blank photo shows that the engine works.
    assert engine.batches == [8, 4, 2, 2, 1, 1, 1, 4]
    assert caplog.messages == ["inference failed on one photo"]


def test_results_are_streamed() -> None:
    read: list[int] = []

    def source() -> Iterator[Item]:
        for item in _items([1] * 20):
            read.append(item.number)
            yield item

    answers = predict(PoisonableEngine(), source(), 3)
    next(answers)
    assert read == list(range(9))  # one batch is done, two are in progress


@pytest.mark.parametrize("ahead", [1, 3, 8])
def test_load_ahead_is_bounded(ahead: int) -> None:
    """After every started load has reported, no item beyond `ahead` may have been requested."""
    requested: list[int] = []
    started = [threading.Event() for _ in range(20)]

    def source() -> Iterator[int]:
        for number in range(20):
            requested.append(number)
            yield number

    def load(number: int) -> Item:
        started[number].set()
        return _item(number, number)

    with ThreadPoolExecutor(4) as pool:
        loaded = load_ahead(pool, source(), load, ahead)
        for consumed in range(1, 21):
            assert next(loaded).number == consumed - 1
            expected = min(20, consumed + ahead)
            assert all(event.wait(10) for event in started[:expected])
            assert len(requested) == expected
        assert list(loaded) == []


def test_order_is_kept_if_the_first_item_loads_last() -> None:
    last = threading.Event()

    def load(number: int) -> Item:
        if number == 0:
            assert last.wait(10)
        if number == 5:
            last.set()
        return _item(number, number)

    with ThreadPoolExecutor(2) as pool:
        assert [item.number for item in load_ahead(pool, range(6), load, 6)] == list(range(6))


def test_loader_errors_propagate() -> None:
    """Loaders return results for bad photos; an exception is a bug or an outage and must propagate."""

    def load(number: int) -> Item:
        if number == 2:
            raise OSError("the disk is gone")
        return _item(number, number)

    with ThreadPoolExecutor(2) as pool:
        loaded = load_ahead(pool, range(5), load, 3)
        assert [next(loaded).number, next(loaded).number] == [0, 1]
        with pytest.raises(OSError, match="the disk is gone"):
            next(loaded)


def test_nothing_to_load() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert list(load_ahead(pool, [], lambda number: _item(number, 0), 4)) == []


def test_probabilities_match_the_model(brightness_bundle: Path) -> None:
    engine = Engine(Bundle(brightness_bundle), threads=1)
    photo = Photo(np.full((224, 224, 3), 100, dtype=np.uint8), 224, 224, "PNG")
    [(_, answer)] = predict(engine, [Item(0, photo)], 16)
    assert isinstance(answer, Prediction)
    assert answer.predicted == 100 * len(CLASSES) // 256
    assert answer.probabilities == pytest.approx(probabilities_of(100), abs=2e-6)
    assert answer.confidence == max(answer.probabilities)


class OverflowingEngine:
    """Outputs NaN for photos of level 3."""

    def infer(self, photos: np.ndarray) -> ModelOutput:
        probabilities = np.eye(7, dtype=np.float32)[photos[:, 0, 0, 0]]
        probabilities[photos[:, 0, 0, 0] == 3] = np.nan
        return ModelOutput(probabilities, np.zeros((len(photos), 1), dtype=np.float32))


def test_nan_output_is_not_an_empty_bin() -> None:
    answers = [answer for _, answer in predict(OverflowingEngine(), _items([2, 3, 4]), 8)]
    assert isinstance(answers[1], PhotoError)
    assert answers[1].reason is Reason.INFERENCE_FAILED
    assert [answer.predicted for answer in answers if isinstance(answer, Prediction)] == [2, 4]
