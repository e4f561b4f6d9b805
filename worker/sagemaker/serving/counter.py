"""Answers photos and links: fetches and decodes on threads, and counts in batches across requests."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from binwatch.cores import usable_cores
from binwatch.errors import ObjectsError, PhotoError, Reason
from binwatch.objects import ObjectRefused, Objects
from binwatch.photo_stats import photo_stats
from binwatch.settings import Settings
from worker.engine import Engine
from worker.metrics import InstrumentedEngine, PhotoStage, WorkerMetrics
from worker.pipeline import Prediction
from worker.sagemaker.serving.answers import INTERNAL_ERROR, UNAVAILABLE, Answer, Received, error_answer, photo_answer
from worker.sagemaker.serving.batching import Batcher, PhotoFuture
from worker.sagemaker.serving.budget import ByteBudget
from worker.sagemaker.serving.links import AllowedLinks, Link

logger = logging.getLogger(__name__)

_HEALTHY_S = 5.0
"""Seconds after a successful call during which the model counts as healthy."""
_CHECK_TIMEOUT_S = 1.5
"""Time limit of a check. SageMaker's limit for /ping is two seconds."""

PhotoResult = tuple[Received, "Prediction | PhotoError"]


class PhotoCounter:
    """One loaded model and the threads that feed it. Its coroutines belong to one event loop."""

    def __init__(self, engine: Engine, settings: Settings, metrics: WorkerMetrics) -> None:
        self.engine = engine
        self._settings = settings
        self._metrics = metrics
        measured, wait_s = InstrumentedEngine(engine, metrics), settings.serve_batch_wait_ms / 1000
        self._batcher = Batcher(measured, settings.batch_size, wait_s, engine.concurrent_calls)
        self._decoders = ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode")
        self._fetchers = ThreadPoolExecutor(settings.fetch_threads, thread_name_prefix="fetch")
        self._first_link = threading.Lock()
        self._allowed = AllowedLinks(settings)
        self._fetched_bytes = ByteBudget(settings.serve_memory_bytes)
        metrics.set_model(engine.card.version, engine.precision, engine.provider, engine.self_check)

    async def count(self, data: bytes) -> Answer:
        """Count a photo. Raises EngineBroken if the model can no longer count."""
        return self._answer(*await self._count(data))

    async def count_link(self, link: Link) -> Answer:
        """Count the linked photo. Raises ObjectsError for an outage of S3, or EngineBroken."""
        if link not in self._allowed:
            return self._refuse_link(
                link,
                Reason.FORBIDDEN,
                "links may point only to the keys of BINWATCH_BUCKET that BINWATCH_SERVE_PREFIXES allows, and nowhere"
                " else",
            )
        with self._fetched_bytes.share() as share:
            await share.reserve(self._settings.max_photo_bytes)
            try:
                data = await asyncio.get_running_loop().run_in_executor(self._fetchers, self._fetch, link)
            except ObjectRefused as error:
                return self._refuse_link(link, Reason(error.reason), str(error))
            share.resize(min(len(data), self._fetched_bytes.total))
            return self._answer(*await self._count(data), link)

    def failure_answer(self, link: Link, error: Exception) -> Answer:
        """Return the answer for a link that failed because of an error that is not the photo's fault."""
        if isinstance(error, ObjectsError):
            logger.warning("a linked photo could not be fetched: %s", error)
            return error_answer(self.engine, UNAVAILABLE, "S3 did not return the photo; send the link again", str(link))
        logger.error("%s could not be counted", link, exc_info=error)
        return error_answer(self.engine, INTERNAL_ERROR, f"{type(error).__name__}; the log has the details", str(link))

    def refuse_size(self, size: int) -> Answer:
        """Return the answer for a photo of `size` bytes that was discarded as too large."""
        limit = self._settings.max_photo_bytes
        error = PhotoError(Reason.TOO_LARGE, f"the file has {size:,} bytes, over the limit of {limit:,}")
        return self._answer(Received(bytes=size), error)

    async def check(self) -> None:
        """Raise an error unless a call has just succeeded, or a blank photo can be counted now."""
        if time.monotonic() - self._batcher.last_success < _HEALTHY_S:
            return
        side = self.engine.card.input_size
        blank: PhotoFuture = _running_future()
        self._batcher.announce()
        self._batcher.add(np.zeros((side, side, 3), np.uint8), blank)
        await asyncio.wait_for(asyncio.wrap_future(blank), _CHECK_TIMEOUT_S)

    def close(self) -> None:
        """Finish the photos in progress, and stop the threads."""
        self._fetchers.shutdown()
        self._decoders.shutdown()
        self._batcher.close()

    def _answer(self, received: Received, result: Prediction | PhotoError, link: Link | None = None) -> Answer:
        self._metrics.count_photo(result.reason if isinstance(result, PhotoError) else None)
        return photo_answer(self.engine, received, result, str(link) if link else None)

    def _refuse_link(self, link: Link, reason: Reason, detail: str) -> Answer:
        self._metrics.count_photo(reason)
        return error_answer(self.engine, reason, detail, str(link))

    async def _count(self, data: bytes) -> PhotoResult:
        future: Future[PhotoResult] = _running_future()
        self._batcher.announce()
        self._decoders.submit(self._decode, data, future)
        return await asyncio.wrap_future(future)

    def _fetch(self, link: Link) -> bytes:
        with self._first_link:
            objects = self._objects
        with self._metrics.timed(PhotoStage.FETCH):
            return objects.fetch(link.bucket, link.key, max_bytes=self._settings.max_photo_bytes).data

    @cached_property
    def _objects(self) -> Objects:
        """The client for S3. It is created for the first link, since transform jobs send none and should start fast."""
        return Objects(self._settings)

    def _decode(self, data: bytes, future: Future[PhotoResult]) -> None:
        received = Received(len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())
        try:
            with self._metrics.timed(PhotoStage.DECODE):
                photo = self.engine.card.load_photo(data, self._settings.limits)
            received = replace(received, photo=photo, stats=photo_stats(photo.pixels))
        except PhotoError as error:
            self._batcher.withdraw()
            future.set_result((received, error))
        except BaseException as error:  # otherwise the request would get no answer
            self._batcher.withdraw()
            future.set_exception(error)
        else:
            prediction: PhotoFuture = _running_future()
            prediction.add_done_callback(partial(_forward, received, future))
            self._batcher.add(photo.pixels, prediction)


def _running_future() -> Future[Any]:
    """Return a future that cannot be cancelled, since a client that disconnects must not disturb a batch."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _forward(received: Received, future: Future[PhotoResult], prediction: PhotoFuture) -> None:
    """Complete `future` with the outcome of `prediction`."""
    error = prediction.exception()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result((received, prediction.result()))
