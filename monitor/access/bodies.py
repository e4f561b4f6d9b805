"""A limit on what a request may send, enforced before anything is parsed."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.access.refusals import refuse

MAX_BYTES = 16_384
"""Bytes of a body: the largest form that the monitor has needs a tenth."""


class BodyLimit:
    """Wraps an app that then gets bodies of at most `limit`, whole; larger ones are answered 413."""

    def __init__(self, app: ASGIApp, limit: Callable[[Scope], int] = lambda _: MAX_BYTES) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope)
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        body = None if not announced.isdigit() or int(announced[:9]) > limit else await _whole(receive, limit)
        if body is None:
            await refuse(scope, receive, send, 413, f"the body is over the limit of {limit:,} bytes")
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)


async def _whole(receive: Receive, limit: int) -> bytes | None:
    """The body; None if it is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)  # the client has gone; the app finds out by itself
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)
