"""Photos → predictions: load ahead on threads, infer in batches, and yield one result per photo, in order."""

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
from worker.inference_sessions import ModelOutput

logger = logging.getLogger(__name__)

_CONCURRENT_BATCHES = 2
_PROBABILITY_DECIMALS = 6
"""Decimals of recorded probabilities; int8 arithmetic is less precise."""


class Loaded(Protocol):
    """The result of a loader; `photo` is None if it could not be loaded."""

    @property
    def photo(self) -> Photo | None: ...


class EngineBroken(BinwatchError):
    """The model can no longer be used, for example because the GPU was lost. No photo is recorded as failed."""


class SupportsInfer(Protocol):
    """An engine that counts photos, such as worker.engine.Engine."""

    def infer(self, photos: npt.NDArray[np.uint8]) -> ModelOutput:
        """Count `photos`, uint8 (n, size, size, 3)."""


Item = TypeVar("Item")
AnyLoaded = TypeVar("AnyLoaded", bound=Loaded)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's output for one photo: the class, the probability of each class, and the embedding (float32).

    `distribution` has the probabilities of 0, 1, … items and of more, if the model distinguishes more quantities than
    the classes do; otherwise it is None.
    """

    predicted: int
    probabilities: list[float]
    embedding: npt.NDArray[np.float32]
    distribution: list[float] | None = None

    @property
    def confidence(self) -> float:
        """Probability of the predicted class."""
        return self.probabilities[self.predicted]


def load_ahead(pool: Executor, items: Iterable[Item], load: Callable[[Item], Result], ahead: int) -> Iterator[Result]:
    """Run `load` on each item in the pool, and yield the results in order. At most `ahead` items are loaded ahead."""
    source = iter(items)
    pending: deque[Future[Result]] = deque(pool.submit(load, item) for item in islice(source, ahead))
    while pending:
        loaded = pending.popleft().result()
        pending.extend(pool.submit(load, item) for item in islice(source, 1))
        yield loaded


def predict(
    engine: SupportsInfer, loaded: Iterable[AnyLoaded], batch_size: int, ahead: int = _CONCURRENT_BATCHES
) -> Iterator[tuple[AnyLoaded, Prediction | PhotoError | None]]:
    """Pair each loaded item, in order, with its prediction or error, or with None if it has no photo.

    Two batches are counted concurrently, so that no core waits for the last photo of a batch. Up to `ahead` batches are
    submitted ahead of the consumer.
    """

    def infer(batch: list[AnyLoaded]) -> tuple[list[AnyLoaded], list[Prediction | PhotoError]]:
        return batch, infer_photos(engine, [item.photo.pixels for item in batch if item.photo is not None])

    batches = _split_into_batches(loaded, batch_size)
    with ThreadPoolExecutor(_CONCURRENT_BATCHES, thread_name_prefix="batch") as pool:
        for batch, results in load_ahead(pool, batches, infer, max(ahead, _CONCURRENT_BATCHES)):
            remaining = iter(results)
            for item in batch:
                yield item, next(remaining) if item.photo is not None else None


def _split_into_batches(loaded: Iterable[AnyLoaded], batch_size: int) -> Iterator[list[AnyLoaded]]:
    """Yield batches of `batch_size` photos. Items without a photo keep their places, and do not add to the size."""
    batch: list[AnyLoaded] = []
    n_photos = 0
    for item in loaded:
        batch.append(item)
        n_photos += item.photo is not None
        if n_photos == batch_size:
            yield batch
            batch, n_photos = [], 0
    yield batch


def infer_photos(engine: SupportsInfer, pixels: Sequence[npt.NDArray[np.uint8]]) -> list[Prediction | PhotoError]:
    """Infer all photos in one call. If it raises, the batch is halved until the photo that causes it is isolated.

    Each of `pixels` is uint8 (size, size, 3). Raises EngineBroken if the model also fails on a blank photo.
    """
    if not pixels:
        return []
    try:
        output = engine.infer(np.stack(pixels))
    except Exception as error:
        if len(pixels) > 1:
            half = len(pixels) // 2
            return infer_photos(engine, pixels[:half]) + infer_photos(engine, pixels[half:])
        _check_engine(engine, pixels[0])
        logger.exception("inference failed on one photo")
        return [PhotoError(Reason.INFERENCE_FAILED, f"ONNX Runtime failed on this photo: {error}")]
    rows = zip(output.counts.tolist(), output.probabilities, output.embeddings, output.distribution, strict=True)
    return [_to_prediction(*row) for row in rows]


def _check_engine(engine: SupportsInfer, photo: npt.NDArray[np.uint8]) -> None:
    """Raise EngineBroken if the model fails on a blank photo, too: then the model is broken, not the photo."""
    try:
        engine.infer(np.zeros_like(photo)[None])
    except Exception as error:
        raise EngineBroken(f"ONNX Runtime fails on every photo ({error}); restart the worker") from error


def _to_prediction(
    count: int,
    probabilities: npt.NDArray[np.floating],
    embedding: npt.NDArray[np.float32],
    distribution: npt.NDArray[np.float32],
) -> Prediction | PhotoError:
    if not (np.isfinite(probabilities).all() and np.isfinite(embedding).all()):
        # Both count rules turn NaN into class 0: an overflow would look like an empty bin.
        return PhotoError(Reason.INFERENCE_FAILED, "the model's output is not a number; try another variant of it")
    is_finer = len(distribution) > len(probabilities)
    return Prediction(count, _round(probabilities), embedding, _round(distribution) if is_finer else None)


def _round(probabilities: npt.NDArray[np.floating]) -> list[float]:
    return [round(float(value), _PROBABILITY_DECIMALS) for value in probabilities]
