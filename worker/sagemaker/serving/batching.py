"""Dynamic batching: photos of several requests are counted in one ONNX Runtime call.

A batch starts once it is full, or no other photo is being decoded, or its first photo has waited long enough. So a
single photo is counted at once, and under load a batch grows while the one before is counted.
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
Counted = Future[Prediction | PhotoError]


class _WaitingPhoto(NamedTuple):
    pixels: Pixels
    since: float
    future: Counted


class Batcher:
    """Counts on its own threads, from construction to `close`. Thread-safe.

    `calls` batches are counted concurrently. On a CPU, two keep every core busy: cores that have finished their part of
    one batch start with the next.
    """

    def __init__(self, engine: SupportsInfer, batch_size: int, wait_s: float, calls: int = 1) -> None:
        self._engine = engine
        self._batch_size = batch_size
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._waiting: deque[_WaitingPhoto] = deque()
        self._coming = 0
        self._closing = False
        self.worked_at = float("-inf")
        """Time of the last successful call, by time.monotonic()."""
        self._threads = [threading.Thread(target=self._run, name="batches", daemon=True) for _ in range(calls)]
        for thread in self._threads:
            thread.start()

    def announce(self) -> None:
        """Announce a photo that is being decoded; `add` or `withdraw` must follow. A batch may wait for it."""
        with self._changed:
            self._coming += 1

    def withdraw(self) -> None:
        """Withdraw an announced photo."""
        with self._changed:
            self._coming -= 1
            self._changed.notify()

    def add(self, pixels: Pixels, future: Counted) -> None:
        """Add an announced photo, uint8 (size, size, 3); `future` gets its answer, or EngineBroken."""
        with self._changed:
            self._coming -= 1
            self._waiting.append(_WaitingPhoto(pixels, time.monotonic(), future))
            self._changed.notify()

    def close(self) -> None:
        """Count the waiting photos, then stop the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while batch := self._next():
            try:
                answers = infer_photos(self._engine, [photo.pixels for photo in batch])
            except Exception as error:  # of any kind: the thread must survive, and each request get an answer
                if not isinstance(error, EngineBroken):
                    logger.exception("counting a batch failed")
                for photo in batch:
                    photo.future.set_exception(error)
                continue
            self.worked_at = time.monotonic()
            for photo, answer in zip(batch, answers, strict=True):
                photo.future.set_result(answer)

    def _next(self) -> list[_WaitingPhoto]:
        """The next batch; empty if the batcher is closed and no photo is left."""
        with self._changed:
            while not self._closing:
                if not self._waiting:
                    self._changed.wait()
                elif (patience := self._patience()) > 0:
                    self._changed.wait(patience)
                else:
                    break
            return [self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))]

    def _patience(self) -> float:
        """Seconds that the batch may still wait for announced photos."""
        if len(self._waiting) >= self._batch_size or not self._coming:
            return 0.0
        return self._waiting[0].since + self._wait_s - time.monotonic()
