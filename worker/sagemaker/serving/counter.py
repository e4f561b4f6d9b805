"""From a photo's bytes, or a link, to the answer: fetches and decodes on threads, and counts in shared batches."""

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
from worker.sagemaker.serving.answers import INTERNAL_ERROR, UNAVAILABLE, Answer, Received, answer, no_count
from worker.sagemaker.serving.batching import Batcher
from worker.sagemaker.serving.budget import ByteBudget
from worker.sagemaker.serving.links import AllowedLinks, Link

logger = logging.getLogger(__name__)

_FRESH_S = 5.0
"""A model is healthy if a call succeeded within this time."""
_CHECK_S = 1.5
"""SageMaker's limit for /ping is two seconds."""

_NOT_ALLOWED = (
    "links may point only to the keys of BINWATCH_BUCKET that BINWATCH_SERVE_PREFIXES allows, and nowhere else"
)

Result = tuple[Received, "Prediction | PhotoError"]


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
        self._fetched = ByteBudget(settings.serve_memory_bytes)
        metrics.set_model(engine.card.version, engine.precision, engine.provider, engine.self_check)

    async def count(self, data: bytes) -> Answer:
        """Count a photo. Raises EngineBroken if the model can no longer count any."""
        return self._answer(*await self._count(data))

    async def count_link(self, link: Link) -> Answer:
        """Count the photo that a link leads to. Raises ObjectsError for an outage of S3, or EngineBroken."""
        if link not in self._allowed:
            return self._refuse_link(link, Reason.FORBIDDEN, _NOT_ALLOWED)
        with self._fetched.share() as share:
            await share.reserve(self._settings.max_photo_bytes)
            try:
                data = await asyncio.get_running_loop().run_in_executor(self._fetchers, self._fetch, link)
            except ObjectRefused as error:
                return self._refuse_link(link, Reason(error.reason), str(error))
            share.resize(min(len(data), self._fetched.most))
            return self._answer(*await self._count(data), link)

    def no_answer(self, link: Link, error: Exception) -> Answer:
        """The answer for a link whose photo could not be fetched or counted, without being at fault."""
        if isinstance(error, ObjectsError):
            logger.warning("a linked photo could not be fetched: %s", error)
            return no_count(self.engine, UNAVAILABLE, "S3 did not return the photo; send the link again", str(link))
        logger.error("%s could not be counted", link, exc_info=error)
        return no_count(self.engine, INTERNAL_ERROR, f"{type(error).__name__}; the log has the details", str(link))

    def refuse(self, size: int) -> Answer:
        """The answer for a photo of `size` bytes that is too large and was discarded."""
        limit = self._settings.max_photo_bytes
        error = PhotoError(Reason.TOO_LARGE, f"the file has {size:,} bytes, over the limit of {limit:,}")
        return self._answer(Received(bytes=size), error)

    async def check(self) -> None:
        """Raise unless the model can count: a call has just succeeded, or a blank photo can be counted now."""
        if time.monotonic() - self._batcher.worked_at < _FRESH_S:
            return
        side = self.engine.card.input_size
        blank: Future[Prediction | PhotoError] = _promise()
        self._batcher.announce()
        self._batcher.add(np.zeros((side, side, 3), np.uint8), blank)
        await asyncio.wait_for(asyncio.wrap_future(blank), _CHECK_S)

    def close(self) -> None:
        """Finish the photos in progress, and stop all threads."""
        self._fetchers.shutdown()
        self._decoders.shutdown()
        self._batcher.close()

    def _answer(self, received: Received, result: Prediction | PhotoError, link: Link | None = None) -> Answer:
        self._metrics.count_photo(result.reason if isinstance(result, PhotoError) else None)
        return answer(self.engine, received, result, str(link) if link else None)

    def _refuse_link(self, link: Link, reason: Reason, detail: str) -> Answer:
        self._metrics.count_photo(reason)
        return no_count(self.engine, reason, detail, str(link))

    async def _count(self, data: bytes) -> Result:
        future: Future[Result] = _promise()
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
        """Created for the first link, since transform jobs send none and should start quickly."""
        return Objects(self._settings)

    def _decode(self, data: bytes, future: Future[Result]) -> None:
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
            counted: Future[Prediction | PhotoError] = _promise()
            counted.add_done_callback(partial(_pass_on, received, future))
            self._batcher.add(photo.pixels, counted)


def _promise() -> Future[Any]:
    """A future that its waiter cannot cancel, since a disconnecting client must not disturb a batch."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _pass_on(received: Received, future: Future[Result], counted: Future[Prediction | PhotoError]) -> None:
    error = counted.exception()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result((received, counted.result()))
