"""The routes that SageMaker calls, as a plain ASGI app, since a framework would take most of a request's time.

A photo that cannot be counted is answered with 200 and the reason, since a single response with another status marks a
whole transform job as failed. Other statuses concern the service, or requests that a transform job of photos never
sends:

- 503 while the model is being loaded, with too many requests in flight or too many bytes held, in an outage of S3, and
  from /ping if the model is broken;
- 500 if the model breaks, or after an unexpected error;
- 400 for a request for links without any valid link (except in a transform job);
- 404, 405, 406, 408 and 413 with their usual meaning.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from binwatch.errors import ObjectsError
from binwatch.sagemaker.settings import MAX_TRANSFORM_MB, TransformEnvironment
from binwatch.settings import Settings
from binwatch.text import count_noun
from binwatch.web.requests import Receive, Reply, Scope, Send, send_reply
from worker.metrics import WorkerMetrics
from worker.pipeline import EngineBroken
from worker.sagemaker.serving.answers import MALFORMED, Answer, error_answer
from worker.sagemaker.serving.bodies import (
    JSON,
    JSON_LINES,
    MAX_BODY_BYTES,
    MAX_LINKS,
    Body,
    BodyKind,
    BodyTooLarge,
    ClientGone,
    accepts,
    body_kind,
    read_body,
)
from worker.sagemaker.serving.budget import ByteBudget, OverBudget, Share
from worker.sagemaker.serving.counter import PhotoCounter
from worker.sagemaker.serving.links import InvalidLink, Link, read_links

logger = logging.getLogger(__name__)

Headers = Mapping[str, str]
_DEFAULT_PAYLOAD_MB = 6
"""SageMaker's default limit on the payload."""
_CONCURRENT_LINKS = 32
"""Number of links of one request that are processed concurrently. It is enough to fill batches, and leaves other
requests their turn."""


class RequestRefused(Exception):
    """A request that is answered with an HTTP error."""

    def __init__(self, status: int, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after_s = retry_after_s


class FailedLink(NamedTuple):
    """A link that could not be processed because of an error that is not the photo's fault."""

    link: Link
    error: Exception


Route = Callable[[Headers, Receive], Awaitable[Reply]]


class App:
    """The ASGI app. It answers from the start, and counts photos as soon as `counter` is set."""

    def __init__(self, settings: Settings, environment: TransformEnvironment, metrics: WorkerMetrics) -> None:
        self.counter: PhotoCounter | None = None
        self._settings = settings
        self._in_batch = environment.batch
        # SageMaker sends at most the number of requests that it announced. The job fails if one of them is refused.
        self.max_requests = max(settings.serve_queue, environment.max_concurrent_transforms)
        """Maximum number of requests with photos or links in flight."""
        job_bytes = MAX_TRANSFORM_MB * 2**20 if environment.batch else 0
        self._body_bytes = ByteBudget(max(settings.serve_memory_bytes, settings.max_photo_bytes, job_bytes))
        self._metrics = metrics
        self._requests_in_flight = 0
        self._routes: dict[tuple[str, str], Route] = {
            ("GET", "/ping"): self._ping,
            ("GET", "/execution-parameters"): self._execution_parameters,
            ("GET", "/metrics"): self._get_metrics,
            ("POST", "/invocations"): self._invoke,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry point."""
        method, path = scope["method"], scope["path"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            reply = await self._find_route(method, path)(headers, receive)
        except ClientGone:
            logger.info("%s %s: the client has disconnected", method, path)
            return
        except Exception as error:
            # The error must not be stored, since its traceback refers to the body.
            reply = _error_reply(error)
        await send_reply(send, reply)

    def _find_route(self, method: str, path: str) -> Route:
        route = self._routes.get((method, path))
        if route is None:
            has_path = any(route_path == path for _, route_path in self._routes)
            raise RequestRefused(405 if has_path else 404, f"{method} {path}: unknown path")
        return route

    async def _ping(self, headers: Headers, receive: Receive) -> Reply:
        """Reply 200 if photos can be counted now. SageMaker sends no photos before that."""
        counter = self._loaded_counter()
        try:
            await counter.check()
        except (EngineBroken, TimeoutError) as error:
            raise RequestRefused(503, f"the model cannot count: {error or 'no answer in time'}") from error
        return _json(200, model=counter.engine.card.version)

    async def _execution_parameters(self, headers: Headers, receive: Receive) -> Reply:
        """Reply with the default parameters of transform jobs, with as many concurrent photos as a batch has.

        A photo over the payload limit fails the job, so that limit is at least SageMaker's default of 6 MB, unless
        photos are limited to less.
        """
        max_photo_mb = -(-self._settings.max_photo_bytes // 2**20)
        concurrent = min(self._settings.batch_size, MAX_TRANSFORM_MB // min(max_photo_mb, _DEFAULT_PAYLOAD_MB))
        payload_mb = min(max_photo_mb, MAX_TRANSFORM_MB // concurrent)
        return _json(200, MaxConcurrentTransforms=concurrent, BatchStrategy="SINGLE_RECORD", MaxPayloadInMB=payload_mb)

    async def _get_metrics(self, headers: Headers, receive: Receive) -> Reply:
        return Reply(200, CONTENT_TYPE_LATEST, generate_latest(self._metrics.registry))

    async def _invoke(self, headers: Headers, receive: Receive) -> Reply:
        counter = self._loaded_counter()
        kind = body_kind(headers.get("content-type", ""))
        content_type = JSON_LINES if kind is BodyKind.LINES else JSON
        if not accepts(headers.get("accept", ""), content_type):
            raise RequestRefused(406, f"Accept: {headers['accept']}: only {content_type} is available")
        if self._requests_in_flight >= self.max_requests:
            self._metrics.refused_requests.inc()
            raise RequestRefused(
                503,
                f"{count_noun(self._requests_in_flight, 'request is', 'requests are')} in flight already; try again",
                retry_after_s=1,
            )
        self._requests_in_flight += 1
        try:
            with self._body_bytes.share() as share:
                if kind is BodyKind.PHOTO:
                    answer = await self._count_photo(counter, headers, receive, share)
                    return Reply(200, content_type, answer.to_json())
                body = await self._read_body(headers, receive, self._settings.max_metadata_bytes, share)
                answers = await _count_links(counter, _parse_links(body, kind))
                # 400 if no line of the request is valid, except in a transform job, which would fail.
                is_invalid = all(answer.reason == MALFORMED for answer in answers) and not self._in_batch
                lines = b"\n".join(answer.to_json() for answer in answers) + b"\n"
                return Reply(400 if is_invalid else 200, content_type, lines)
        finally:
            self._requests_in_flight -= 1

    async def _count_photo(self, counter: PhotoCounter, headers: Headers, receive: Receive, share: Share) -> Answer:
        body = await self._read_body(headers, receive, self._settings.max_photo_bytes, share)
        if body.size > self._settings.max_photo_bytes:
            return counter.refuse_size(body.size)
        return await counter.count(body.data)

    async def _read_body(self, headers: Headers, receive: Receive, max_bytes: int, share: Share) -> Body:
        try:
            return await read_body(receive, headers, max_bytes, share)
        except OverBudget as error:
            self._metrics.refused_requests.inc()
            message = "other requests hold all the memory for bodies; try again"
            raise RequestRefused(503, message, retry_after_s=1) from error

    def _loaded_counter(self) -> PhotoCounter:
        if self.counter is None:
            raise RequestRefused(503, "the model is being loaded", retry_after_s=1)
        return self.counter


def _parse_links(body: Body, kind: BodyKind) -> list[Link | InvalidLink]:
    if not body.data and body.size:
        raise RequestRefused(413, f"{body.size:,} bytes are too many for links; send fewer in one request")
    links = read_links(body.data.splitlines() if kind is BodyKind.LINES else [body.data])
    if len(links) > MAX_LINKS:
        raise RequestRefused(413, f"{len(links):,} links in one request; send at most {MAX_LINKS:,}")
    return links


async def _count_links(counter: PhotoCounter, links: Sequence[Link | InvalidLink]) -> list[Answer]:
    """Return one answer for each link, in the same order.

    Raises EngineBroken, or the first error if all valid links failed. If S3 fails for all of
    _CONCURRENT_LINKS consecutive links, no further photos are requested.
    """
    results: list[Answer | FailedLink] = []
    outage: Exception | None = None
    for start in range(0, len(links), _CONCURRENT_LINKS):
        chunk = links[start : start + _CONCURRENT_LINKS]
        chunk_results = await asyncio.gather(*(_count_link(counter, link, outage) for link in chunk))
        results += chunk_results
        errors = [result.error for result in chunk_results if isinstance(result, FailedLink)]
        outages = [error for error in errors if isinstance(error, ObjectsError)]
        if len(outages) == _CONCURRENT_LINKS:
            outage = outages[0]
    failed = [result for result in results if isinstance(result, FailedLink)]
    if failed and len(failed) == sum(isinstance(link, Link) for link in links):
        raise failed[0].error
    return [counter.failure_answer(*result) if isinstance(result, FailedLink) else result for result in results]


async def _count_link(counter: PhotoCounter, link: Link | InvalidLink, outage: Exception | None) -> Answer | FailedLink:
    if isinstance(link, InvalidLink):
        return error_answer(counter.engine, MALFORMED, link.reason)
    if outage is not None:
        return FailedLink(link, outage)
    try:
        return await counter.count_link(link)
    except EngineBroken:
        raise
    except Exception as error:  # an error of one link must not lose the answers to the others
        return FailedLink(link, error)


def _error_reply(error: Exception) -> Reply:
    """Return the reply for an error that is not a photo's fault."""
    if isinstance(error, RequestRefused):
        return _json(error.status, error.retry_after_s, error=str(error))
    if isinstance(error, BodyTooLarge):
        return _json(413, error=f"the body has over {MAX_BODY_BYTES:,} bytes, SageMaker's limit")
    if isinstance(error, ObjectsError):
        logger.warning("a linked photo could not be fetched: %s", error)
        return _json(503, 1, error="S3 did not return the photos; try again")
    if isinstance(error, EngineBroken):
        return _json(500, error=str(error))
    logger.exception("a request failed", exc_info=error)
    return _json(500, error=f"{type(error).__name__}; the log has the details")


def _json(status: int, retry_after_s: int | None = None, **content: object) -> Reply:
    return Reply(status, JSON, json.dumps(content).encode(), retry_after_s)
