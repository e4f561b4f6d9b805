"""Dynamic batching: counts photos of several requests in one ONNX Runtime call.

A batch starts as soon as it is full, no other photo is being decoded, or its first photo has waited long enough. So a
single photo is counted immediately, and under load a batch grows while the previous one is counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from binwatch.errors import PhotoError
from worker.pipeline import EngineBroken, Prediction, SupportsInfer, infer_photos

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
PhotoFuture = Future[Prediction | PhotoError]


class _WaitingPhoto(NamedTuple):
    pixels: Pixels
    added_at: float
    """Time by time.monotonic()."""
    future: PhotoFuture


class Batcher:
    """Counts photos on its own threads, from construction to `close`. Thread-safe.

    `calls` is the number of batches that are counted concurrently. On a CPU, two keep all cores busy: cores that have
    finished their part of one batch start on the next.
    """

    def __init__(self, engine: SupportsInfer, batch_size: int, wait_s: float, calls: int = 1) -> None:
        self._engine = engine
        self._batch_size = batch_size
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._waiting: deque[_WaitingPhoto] = deque()
        self._announced = 0
        self._closing = False
        self.last_success = float("-inf")
        """Time of the last successful call, by time.monotonic()."""
        self._threads = [
            threading.Thread(target=self._count_batches, name="batches", daemon=True) for _ in range(calls)
        ]
        for thread in self._threads:
            thread.start()

    def announce(self) -> None:
        """Announce a photo that is being decoded, so that a batch may wait for it. `add` or `withdraw` must follow."""
        with self._changed:
            self._announced += 1

    def withdraw(self) -> None:
        """Withdraw an announced photo."""
        with self._changed:
            self._announced -= 1
            self._changed.notify()

    def add(self, pixels: Pixels, future: PhotoFuture) -> None:
        """Add an announced photo, uint8 (size, size, 3). `future` receives its result, or EngineBroken."""
        with self._changed:
            self._announced -= 1
            self._waiting.append(_WaitingPhoto(pixels, time.monotonic(), future))
            self._changed.notify()

    def close(self) -> None:
        """Count the waiting photos, then stop the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _count_batches(self) -> None:
        while batch := self._next_batch():
            try:
                results = infer_photos(self._engine, [photo.pixels for photo in batch])
            except Exception as error:  # the thread must survive any error, and each request needs an answer
                if not isinstance(error, EngineBroken):
                    logger.exception("counting a batch failed")
                for photo in batch:
                    photo.future.set_exception(error)
                continue
            self.last_success = time.monotonic()
            for photo, result in zip(batch, results, strict=True):
                photo.future.set_result(result)

    def _next_batch(self) -> list[_WaitingPhoto]:
        """Wait for the next batch and return it. It is empty if the batcher is closed and no photo is left."""
        with self._changed:
            while not self._closing:
                if not self._waiting:
                    self._changed.wait()
                elif (wait_s := self._remaining_wait()) > 0:
                    self._changed.wait(wait_s)
                else:
                    break
            return [self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))]

    def _remaining_wait(self) -> float:
        """Return for how many more seconds the batch may wait for announced photos."""
        if len(self._waiting) >= self._batch_size or not self._announced:
            return 0.0
        return self._waiting[0].added_at + self._wait_s - time.monotonic()
