"""Tests of the start of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
import pytest

from worker.inference_sessions import ModelOutput
from worker.pipeline import EngineBroken
from worker.sagemaker.serving.batching import Batcher

WITHIN_S = 30
PHOTO = np.zeros((2, 2, 3), np.uint8)

Make = Callable[[float], Batcher]


class RecordingEngine:
    """Replaces an engine and records the size of each batch."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.error: Exception | None = None

    def infer(self, photos: np.ndarray) -> ModelOutput:
        self.batches.append(len(photos))
        if self.error is not None:
            raise self.error
        return ModelOutput(np.eye(7, dtype=np.float32)[photos[:, 0, 0, 0]], np.zeros((len(photos), 1), np.float32))


@pytest.fixture
def engine() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def make(engine: RecordingEngine) -> Iterator[Make]:
    made: list[Batcher] = []

    def make(wait_s: float) -> Batcher:
        made.append(Batcher(engine, 4, wait_s))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()


def add(batcher: Batcher, value: int = 0) -> Future:
    future: Future = Future()
    batcher.add(PHOTO + np.uint8(value), future)
    return future


def test_single_photo_does_not_wait(engine: RecordingEngine, make: Make) -> None:
    batcher = make(1e6)
    batcher.announce()
    assert add(batcher, 5).result(WITHIN_S).predicted == 5
    assert engine.batches == [1]


def test_batch_waits_for_announced_photos(engine: RecordingEngine, make: Make) -> None:
    batcher = make(1e6)
    for _ in range(3):
        batcher.announce()
    first = add(batcher, 1)
    batcher.withdraw()  # the second announced file is not a photo
    assert not first.done()
    assert [future.result(WITHIN_S).predicted for future in (add(batcher, 2), first)] == [2, 1]
    assert engine.batches == [2]


def test_full_batch_does_not_wait(engine: RecordingEngine, make: Make) -> None:
    batcher = make(1e6)
    for _ in range(5):
        batcher.announce()
    futures = [add(batcher, value) for value in range(4)]
    assert [future.result(WITHIN_S).predicted for future in futures] == [0, 1, 2, 3]
    assert engine.batches == [4]


def test_batch_starts_after_wait_limit(engine: RecordingEngine, make: Make) -> None:
    batcher = make(0.02)
    batcher.announce()
    batcher.announce()
    add(batcher).result(WITHIN_S)
    assert engine.batches == [1]


def test_error_reaches_each_request_and_next_batch_is_counted(engine: RecordingEngine, make: Make) -> None:
    batcher = make(1e6)
    engine.error = RuntimeError("lost")
    batcher.announce()
    batcher.announce()
    futures = [add(batcher), add(batcher)]
    for future in futures:
        assert isinstance(future.exception(WITHIN_S), EngineBroken)
    engine.error = None
    batcher.announce()
    assert add(batcher, 6).result(WITHIN_S).predicted == 6


def test_close_counts_waiting_photos(engine: RecordingEngine, make: Make) -> None:
    batcher = make(1e6)
    batcher.announce()
    batcher.announce()
    future = add(batcher, 3)
    batcher.close()
    assert future.result(0).predicted == 3
