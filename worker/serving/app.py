"""The routes that SageMaker calls, as a plain ASGI app: a framework's work for each photo would be most of HTTP's cost.

A photo that cannot be counted is answered with 200 and the reason, since one answer other than 200 marks a whole
transform job as failed. Other statuses are about the service, or about requests that a transform job of photos never
makes: 503 while the model is loaded, after the model broke, when too much is in hand and when S3 is out; 400 if
there is no link in a request for links (but not in a batch); 404, 405, 406, 408 and 413 as HTTP has them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from binwatch.errors import ObjectsError
from binwatch.settings import TRANSFORM_MB, Settings, TransformEnvironment
from worker.metrics import WorkerMetrics
from worker.pipeline import EngineBroken
from worker.serving.answers import MALFORMED, Answer, malformed
from worker.serving.bodies import (
    JSON,
    JSON_LINES,
    MAX_BODY,
    MAX_LINKS,
    Body,
    BodyKind,
    BodyTooLarge,
    ClientGone,
    NotALink,
    Receive,
    accepts,
    kind_of_body,
    links,
    read_body,
)
from worker.serving.counter import PhotoCounter

logger = logging.getLogger(__name__)

Headers = Mapping[str, str]
Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_BODY_S = 60
"""Seconds that a client has for its body: one that says no more must not keep its place."""
_USUAL_MB = 6
_AT_ONCE = 32
"""Links of one request that are followed at a time: enough to fill batches, and other requests get their turn."""


class Refused(Exception):
    """A request that is answered with an error of HTTP's."""

    def __init__(self, status: int, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after_s = retry_after_s


class Reply(NamedTuple):
    """An answer of HTTP's."""

    status: int
    kind: str
    body: bytes


Route = Callable[[Headers, Receive], Awaitable[Reply]]


class App:
    """Answers as soon as it is made; counts once it is given a counter."""

    def __init__(self, settings: Settings, environment: TransformEnvironment, metrics: WorkerMetrics) -> None:
        self.counter: PhotoCounter | None = None
        self._settings = settings
        self._in_batch = environment.batch
        # SageMaker does not send more than it said; what it said must fit, or its job would fail of the settings.
        self._most = max(settings.serve_queue, environment.max_concurrent_transforms)
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
            await _reply(send, await self._route(method, path)(headers, receive))
        except ClientGone:
            logger.info("%s %s: the client is gone", method, path)
        except Exception as error:
            refused = error if isinstance(error, Refused) else _explained(error)
            await _reply(send, _json(refused.status, error=str(refused)), refused.retry_after_s)

    def _route(self, method: str, path: str) -> Route:
        route = self._routes.get((method, path))
        if route is None:
            known = any(name == path for _, name in self._routes)
            raise Refused(405 if known else 404, f"{method} {path}: there is no such thing here")
        return route

    async def _ping(self, headers: Headers, receive: Receive) -> Reply:
        """200 only if photos can be counted now; SageMaker sends no photo before."""
        counter = self._ready()
        try:
            await counter.check()
        except (EngineBroken, TimeoutError) as error:
            raise Refused(503, f"the model cannot count: {error or 'no answer in time'}") from error
        return _json(200, model=counter.engine.card.version)

    async def _parameters(self, headers: Headers, receive: Receive) -> Reply:
        """What a transform job is best started with, unless it was told otherwise: as many photos as one batch takes.

        But a larger photo than it may send fails the job, so it may send SageMaker's usual 6 MB at least.
        """
        largest = -(-self._settings.max_photo_bytes // 2**20)
        concurrent = min(self._settings.batch_size, TRANSFORM_MB // min(largest, _USUAL_MB))
        payload = min(largest, TRANSFORM_MB // concurrent)
        return _json(200, MaxConcurrentTransforms=concurrent, BatchStrategy="SINGLE_RECORD", MaxPayloadInMB=payload)

    async def _scrape(self, headers: Headers, receive: Receive) -> Reply:
        return Reply(200, CONTENT_TYPE_LATEST, generate_latest(self._metrics.registry))

    async def _invoke(self, headers: Headers, receive: Receive) -> Reply:
        counter = self._ready()
        kind = kind_of_body(headers.get("content-type", ""))
        offered = JSON_LINES if kind is BodyKind.LINES else JSON
        if not accepts(headers.get("accept", ""), offered):
            raise Refused(406, f"Accept: {headers['accept']}: only {offered} can be had")
        if self._in_hand >= self._most:
            self._metrics.refused()
            raise Refused(503, f"{self._in_hand} requests are in hand already; try again", retry_after_s=1)
        self._in_hand += 1
        try:
            if kind is BodyKind.PHOTO:
                return Reply(200, offered, await self._photo(counter, headers, receive))
            body = await self._body(headers, receive, self._settings.max_metadata_bytes)
            return self._reply_to_links(offered, await _follow(counter, _asked(body, kind)))
        finally:
            self._in_hand -= 1

    async def _photo(self, counter: PhotoCounter, headers: Headers, receive: Receive) -> bytes:
        body = await self._body(headers, receive, self._settings.max_photo_bytes)
        if body.size > self._settings.max_photo_bytes:
            return counter.refuse(body.size).line()
        return (await counter.count(body.data)).line()

    async def _body(self, headers: Headers, receive: Receive, wanted: int) -> Body:
        try:
            async with asyncio.timeout(_BODY_S):
                return await read_body(receive, headers, wanted)
        except TimeoutError as error:
            raise Refused(408, f"the body was not there within {_BODY_S} seconds") from error

    def _reply_to_links(self, offered: str, answers: list[Answer]) -> Reply:
        """A request of which nothing can be understood is the client's mistake; a transform job would fail of it."""
        bad = all(answer.reason == MALFORMED for answer in answers) and not self._in_batch
        return Reply(400 if bad else 200, offered, b"\n".join(answer.line() for answer in answers) + b"\n")

    def _ready(self) -> PhotoCounter:
        if self.counter is None:
            raise Refused(503, "the model is being loaded", retry_after_s=1)
        return self.counter


def _asked(body: Body, kind: BodyKind) -> list[str | NotALink]:
    if not body.data and body.size:
        raise Refused(413, f"{body.size:,} bytes are too many for links; send fewer in one request")
    asked = links(body.data, kind)
    if len(asked) > MAX_LINKS:
        raise Refused(413, f"{len(asked):,} links in one request; send at most {MAX_LINKS:,}")
    return asked


async def _follow(counter: PhotoCounter, asked: Sequence[str | NotALink]) -> list[Answer]:
    """One answer for each, in the same order. Raises the first error that is no photo's."""
    answers: list[Answer] = []
    for start in range(0, len(asked), _AT_ONCE):
        following = (_follow_one(counter, link) for link in asked[start : start + _AT_ONCE])
        for answer in await asyncio.gather(*following, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
    return answers


async def _follow_one(counter: PhotoCounter, link: str | NotALink) -> Answer:
    if isinstance(link, NotALink):
        return malformed(counter.engine, link.why)
    return await counter.count_link(link)


def _explained(error: Exception) -> Refused:
    """What a client is told of an error that is no photo's."""
    if isinstance(error, BodyTooLarge):
        return Refused(413, f"the body has over {MAX_BODY:,} bytes, SageMaker's limit")
    if isinstance(error, ObjectsError):
        logger.warning("a link could not be followed: %s", error)
        return Refused(503, str(error), retry_after_s=1)
    if isinstance(error, EngineBroken):
        return Refused(500, str(error))
    logger.exception("a request failed", exc_info=error)
    return Refused(500, f"{type(error).__name__}; the log says more")


def _json(status: int, **content: object) -> Reply:
    return Reply(status, JSON, json.dumps(content).encode())


async def _reply(send: Send, reply: Reply, retry_after_s: int | None = None) -> None:
    headers = [(b"content-type", reply.kind.encode()), (b"content-length", str(len(reply.body)).encode())]
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
