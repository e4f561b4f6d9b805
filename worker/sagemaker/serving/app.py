"""The routes that SageMaker calls, as a plain ASGI app, since a framework would take most of the time of a request.

A photo that cannot be counted is answered with 200 and the reason, since one answer other than 200 marks a whole
transform job as failed. Other statuses are about the service, or about requests that a transform job of photos never
sends: 503 while the model is loaded, after it broke, with too many requests in flight, and in an outage of S3; 400 for
a request for links without any link (except in a transform job); 404, 405, 406, 408 and 413 with their usual meaning.
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
from worker.sagemaker.serving.answers import MALFORMED, Answer, no_count
from worker.sagemaker.serving.bodies import (
    JSON,
    JSON_LINES,
    MAX_BODY,
    MAX_LINKS,
    Body,
    BodyKind,
    BodyTooLarge,
    ClientGone,
    accepts,
    kind_of_body,
    read_body,
)
from worker.sagemaker.serving.budget import ByteBudget, OverBudget, Share
from worker.sagemaker.serving.counter import PhotoCounter
from worker.sagemaker.serving.links import Link, NotALink, read_links

logger = logging.getLogger(__name__)

Headers = Mapping[str, str]
_USUAL_MB = 6
_AT_ONCE = 32
"""Links of one request that are processed concurrently: enough to fill batches, while other requests get their turn."""


class Refused(Exception):
    """A request that is answered with an HTTP error."""

    def __init__(self, status: int, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after_s = retry_after_s


class Unanswered(NamedTuple):
    """A link that could not be processed, and the error, which is not the photo's fault."""

    link: Link
    error: Exception


Route = Callable[[Headers, Receive], Awaitable[Reply]]


class App:
    """The ASGI app. Answers at once, and counts photos as soon as `counter` is set."""

    def __init__(self, settings: Settings, environment: TransformEnvironment, metrics: WorkerMetrics) -> None:
        self.counter: PhotoCounter | None = None
        self._settings = settings
        self._in_batch = environment.batch
        # SageMaker sends at most as many requests as it announced. These must fit, or its job would fail.
        self.most = max(settings.serve_queue, environment.max_concurrent_transforms)
        """Most requests with photos or links in flight."""
        of_a_job = MAX_TRANSFORM_MB * 2**20 if environment.batch else 0
        self._bodies = ByteBudget(max(settings.serve_memory_bytes, settings.max_photo_bytes, of_a_job))
        self._metrics = metrics
        self._in_hand = 0
        self._routes: dict[tuple[str, str], Route] = {
            ("GET", "/ping"): self._ping,
            ("GET", "/execution-parameters"): self._parameters,
            ("GET", "/metrics"): self._scrape,
            ("POST", "/invocations"): self._invoke,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry point."""
        method, path = scope["method"], scope["path"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            reply = await self._route(method, path)(headers, receive)
        except ClientGone:
            logger.info("%s %s: the client has disconnected", method, path)
            return
        except Exception as error:
            # The error must not be kept, since its traceback refers to the body.
            reply = _explained(error)
        await send_reply(send, reply)

    def _route(self, method: str, path: str) -> Route:
        route = self._routes.get((method, path))
        if route is None:
            known = any(name == path for _, name in self._routes)
            raise Refused(405 if known else 404, f"{method} {path}: unknown path")
        return route

    async def _ping(self, headers: Headers, receive: Receive) -> Reply:
        """200 if photos can be counted now. SageMaker sends no photos before that."""
        counter = self._ready()
        try:
            await counter.check()
        except (EngineBroken, TimeoutError) as error:
            raise Refused(503, f"the model cannot count: {error or 'no answer in time'}") from error
        return _json(200, model=counter.engine.card.version)

    async def _parameters(self, headers: Headers, receive: Receive) -> Reply:
        """Default parameters of transform jobs: as many concurrent photos as a batch has.

        A photo over the payload limit fails the job, so that limit is at least SageMaker's usual 6 MB.
        """
        largest = -(-self._settings.max_photo_bytes // 2**20)
        concurrent = min(self._settings.batch_size, MAX_TRANSFORM_MB // min(largest, _USUAL_MB))
        payload = min(largest, MAX_TRANSFORM_MB // concurrent)
        return _json(200, MaxConcurrentTransforms=concurrent, BatchStrategy="SINGLE_RECORD", MaxPayloadInMB=payload)

    async def _scrape(self, headers: Headers, receive: Receive) -> Reply:
        return Reply(200, CONTENT_TYPE_LATEST, generate_latest(self._metrics.registry))

    async def _invoke(self, headers: Headers, receive: Receive) -> Reply:
        counter = self._ready()
        kind = kind_of_body(headers.get("content-type", ""))
        offered = JSON_LINES if kind is BodyKind.LINES else JSON
        if not accepts(headers.get("accept", ""), offered):
            raise Refused(406, f"Accept: {headers['accept']}: only {offered} is available")
        if self._in_hand >= self.most:
            self._metrics.refused_requests.inc()
            raise Refused(
                503,
                f"{count_noun(self._in_hand, 'request is', 'requests are')} in flight already; try again",
                retry_after_s=1,
            )
        self._in_hand += 1
        try:
            with self._bodies.share() as share:
                if kind is BodyKind.PHOTO:
                    return Reply(200, offered, await self._photo(counter, headers, receive, share))
                body = await self._body(headers, receive, self._settings.max_metadata_bytes, share)
                return self._reply_to_links(offered, await _follow(counter, _asked(body, kind)))
        finally:
            self._in_hand -= 1

    async def _photo(self, counter: PhotoCounter, headers: Headers, receive: Receive, share: Share) -> bytes:
        body = await self._body(headers, receive, self._settings.max_photo_bytes, share)
        if body.size > self._settings.max_photo_bytes:
            return counter.refuse(body.size).line()
        return (await counter.count(body.data)).line()

    async def _body(self, headers: Headers, receive: Receive, wanted: int, share: Share) -> Body:
        try:
            return await read_body(receive, headers, wanted, share)
        except OverBudget as error:
            self._metrics.refused_requests.inc()
            raise Refused(503, "other requests hold all the memory for bodies; try again", retry_after_s=1) from error

    def _reply_to_links(self, offered: str, answers: list[Answer]) -> Reply:
        """400 if no line of the request is valid, except in a transform job, which that status would fail."""
        bad = all(answer.reason == MALFORMED for answer in answers) and not self._in_batch
        return Reply(400 if bad else 200, offered, b"\n".join(answer.line() for answer in answers) + b"\n")

    def _ready(self) -> PhotoCounter:
        if self.counter is None:
            raise Refused(503, "the model is being loaded", retry_after_s=1)
        return self.counter


def _asked(body: Body, kind: BodyKind) -> list[Link | NotALink]:
    if not body.data and body.size:
        raise Refused(413, f"{body.size:,} bytes are too many for links; send fewer in one request")
    asked = read_links(body.data.splitlines() if kind is BodyKind.LINES else [body.data])
    if len(asked) > MAX_LINKS:
        raise Refused(413, f"{len(asked):,} links in one request; send at most {MAX_LINKS:,}")
    return asked


async def _follow(counter: PhotoCounter, asked: Sequence[Link | NotALink]) -> list[Answer]:
    """One answer for each link, in the same order. Raises EngineBroken, or the first error if no link has an answer.

    Once S3 has returned none of _AT_ONCE concurrently requested photos, the other links are not requested.
    """
    found: list[Answer | Unanswered] = []
    outage: Exception | None = None
    for start in range(0, len(asked), _AT_ONCE):
        following = [_follow_one(counter, link, outage) for link in asked[start : start + _AT_ONCE]]
        some = await asyncio.gather(*following)
        found += some
        outages = [one.error for one in some if isinstance(one, Unanswered) and isinstance(one.error, ObjectsError)]
        if len(outages) == _AT_ONCE:
            outage = outages[0]
    failed = [one for one in found if isinstance(one, Unanswered)]
    if failed and len(failed) == sum(isinstance(one, Link) for one in asked):
        raise failed[0].error
    return [counter.no_answer(*one) if isinstance(one, Unanswered) else one for one in found]


async def _follow_one(counter: PhotoCounter, link: Link | NotALink, outage: Exception | None) -> Answer | Unanswered:
    if isinstance(link, NotALink):
        return no_count(counter.engine, MALFORMED, link.why)
    if outage is not None:
        return Unanswered(link, outage)
    try:
        return await counter.count_link(link)
    except EngineBroken:
        raise
    except Exception as error:  # of any kind: the other links have their answers
        return Unanswered(link, error)


def _explained(error: Exception) -> Reply:
    """The response for an error that is not a photo's."""
    if isinstance(error, Refused):
        return _json(error.status, error.retry_after_s, error=str(error))
    if isinstance(error, BodyTooLarge):
        return _json(413, error=f"the body has over {MAX_BODY:,} bytes, SageMaker's limit")
    if isinstance(error, ObjectsError):
        logger.warning("a linked photo could not be fetched: %s", error)
        return _json(503, 1, error="S3 did not return the photos; try again")
    if isinstance(error, EngineBroken):
        return _json(500, error=str(error))
    logger.exception("a request failed", exc_info=error)
    return _json(500, error=f"{type(error).__name__}; the log has the details")


def _json(status: int, retry_after_s: int | None = None, **content: object) -> Reply:
    return Reply(status, JSON, json.dumps(content).encode(), retry_after_s)
