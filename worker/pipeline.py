"""From photos to predictions: load ahead on threads, infer in batches, one answer per photo, in order."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from binwatch.errors import BinwatchError, PhotoError, Reason
from binwatch.image import Photo
from worker.inference_sessions import Inferred

logger = logging.getLogger(__name__)

_CALLS = 2
"""Batches that are counted concurrently."""
_DIGITS = 6
"""Decimals of probabilities; int8 arithmetic is less precise."""


class Loaded(Protocol):
    """The result of a loader, with the photo, or None if it could not be loaded."""

    @property
    def photo(self) -> Photo | None: ...


class EngineBroken(BinwatchError):
    """The model can no longer be used, for example because the GPU is lost. No photo is recorded as failed."""


class Infers(Protocol):
    """Counts photos, as worker.engine.Engine does."""

    def infer(self, photos: npt.NDArray[np.uint8]) -> Inferred:
        """Count `photos`, uint8 (n, size, size, 3)."""


Item = TypeVar("Item")
AnyLoaded = TypeVar("AnyLoaded", bound=Loaded)
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's output for one photo: the class, the probability of each class, and the embedding (float32).

    `distribution` has the probabilities of 0, 1, … items and of more, if the model distinguishes more numbers than the
    classes do; else it is None.
    """

    predicted: int
    probabilities: list[float]
    embedding: npt.NDArray[np.float32]
    distribution: list[float] | None = None

    @property
    def confidence(self) -> float:
        """Probability of the predicted class."""
        return self.probabilities[self.predicted]


def load_ahead(pool: Executor, items: Iterable[Item], load: Callable[[Item], Answer], ahead: int) -> Iterator[Answer]:
    """Run `load` on each item in the pool, and give the results in order. At most `ahead` items are loaded ahead."""
    source = iter(items)
    waiting: deque[Future[Answer]] = deque(pool.submit(load, item) for item in islice(source, ahead))
    while waiting:
        loaded = waiting.popleft().result()
        waiting.extend(pool.submit(load, item) for item in islice(source, 1))
        yield loaded


def predict(
    engine: Infers, loaded: Iterable[AnyLoaded], batch_size: int, ahead: int = _CALLS
) -> Iterator[tuple[AnyLoaded, Prediction | PhotoError | None]]:
    """Pair each of `loaded`, in order, with its prediction or error; with None if it has no photo.

    Two batches are counted concurrently, so that no core waits for the last photo of a batch. Up to `ahead` batches are
    submitted ahead of the consumer.
    """

    def infer(held: list[AnyLoaded]) -> tuple[list[AnyLoaded], list[Prediction | PhotoError]]:
        return held, infer_all(engine, [item.photo.pixels for item in held if item.photo is not None])

    with ThreadPoolExecutor(_CALLS, thread_name_prefix="batch") as pool:
        for held, answers in load_ahead(pool, _batches(loaded, batch_size), infer, max(ahead, _CALLS)):
            rest = iter(answers)
            for item in held:
                yield item, next(rest) if item.photo is not None else None


def _batches(loaded: Iterable[AnyLoaded], batch_size: int) -> Iterator[list[AnyLoaded]]:
    """Batches of `batch_size` photos. Items without a photo stay in their places, and do not count."""
    held: list[AnyLoaded] = []
    photos = 0
    for item in loaded:
        held.append(item)
        photos += item.photo is not None
        if photos == batch_size:
            yield held
            held, photos = [], 0
    yield held


def infer_all(engine: Infers, pixels: Sequence[npt.NDArray[np.uint8]]) -> list[Prediction | PhotoError]:
    """Infer all photos in one call. If it raises, the batch is halved until the photo that causes it is isolated.

    Each of `pixels` is uint8 (size, size, 3). Raises EngineBroken if the model fails on any photo.
    """
    if not pixels:
        return []
    try:
        inferred = engine.infer(np.stack(pixels))
    except Exception as error:
        if len(pixels) == 1:
            _check(engine, pixels[0])
            logger.exception("inference failed on one photo")
            return [PhotoError(Reason.INFERENCE_FAILED, f"ONNX Runtime failed on this photo: {error}")]
        half = len(pixels) // 2
        return infer_all(engine, pixels[:half]) + infer_all(engine, pixels[half:])
    counts = inferred.counts.tolist()
    answers = zip(counts, inferred.probabilities, inferred.embeddings, inferred.distribution, strict=True)
    return [_prediction(*answer) for answer in answers]


def _check(engine: Infers, photo: npt.NDArray[np.uint8]) -> None:
    """Raise EngineBroken unless a blank photo can be counted: then the model is broken, not the photo."""
    try:
        engine.infer(np.zeros_like(photo)[None])
    except Exception as error:
        raise EngineBroken(f"ONNX Runtime fails on every photo ({error}); restart the worker") from error


def _prediction(
    count: int,
    probabilities: npt.NDArray[np.floating],
    embedding: npt.NDArray[np.float32],
    distribution: npt.NDArray[np.float32],
) -> Prediction | PhotoError:
    if not (np.isfinite(probabilities).all() and np.isfinite(embedding).all()):
        # Both count rules turn NaN into class 0: an overflow would look like an empty bin.
        return PhotoError(Reason.INFERENCE_FAILED, "the model's output is not a number; try another variant of it")
    finer = _rounded(distribution) if len(distribution) > len(probabilities) else None
    return Prediction(count, _rounded(probabilities), embedding, finer)


def _rounded(probabilities: npt.NDArray[np.floating]) -> list[float]:
    return [round(float(value), _DIGITS) for value in probabilities]
