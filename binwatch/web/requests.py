"""HTTP responses, and a limit on requests in flight with reserved capacity for probes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, NamedTuple

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Reply(NamedTuple):
    """An HTTP response."""

    status: int
    content_type: str
    body: bytes
    retry_after_s: int | None = None


async def send_reply(send: Send, reply: Reply) -> None:
    """Send a response."""
    headers = [(b"content-type", reply.content_type.encode()), (b"content-length", str(len(reply.body)).encode())]
    if reply.retry_after_s is not None:
        headers.append((b"retry-after", str(reply.retry_after_s).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


MAX_REQUESTS_PER_PROBE = 8
"""Maximum number of requests in flight for one probe's path."""


class RequestLimit:
    """Wraps an ASGI app: allows at most `max_requests` requests in flight, plus a few for each probe.

    A probe is a path for monitoring the service, such as /healthz. It must be answered even under high load.
    """

    def __init__(self, app: App, max_requests: int, probes: Collection[str], refuse: App) -> None:
        """`refuse` answers requests over the limit."""
        self._app = app
        self._max_requests = max_requests
        self._probes = frozenset(probes)
        self._refuse = refuse
        self._in_flight: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Maximum number of requests in flight, including probes."""
        return self._max_requests + MAX_REQUESTS_PER_PROBE * len(self._probes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or refuse it if too many are in flight."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        probe = path if path in self._probes else ""
        if self._in_flight[probe] >= (MAX_REQUESTS_PER_PROBE if probe else self._max_requests):
            await self._refuse(scope, receive, send)
            return
        self._in_flight[probe] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight[probe] -= 1


async def send_unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    """Send a 503 as plain text."""
    await send_reply(send, Reply(503, "text/plain", b"too many requests are in flight; try again\n", retry_after_s=1))
