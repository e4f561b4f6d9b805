"""Limit on the size of request bodies, enforced before a body is parsed."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.access.refusals import refuse

MAX_BODY_BYTES = 16_384
"""Maximum size of a body in bytes: ten times the size of the monitor's largest form."""


class BodyLimit:
    """ASGI middleware that buffers request bodies, and answers 413 if a body is larger than the limit."""

    def __init__(self, app: ASGIApp, limit_of: Callable[[Scope], int] = lambda _: MAX_BODY_BYTES) -> None:
        """`limit_of` returns the maximum size of a request's body in bytes."""
        self._app, self._limit_of = app, limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        limit = self._limit_of(scope)
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        body = None if not length.isdigit() or int(length[:9]) > limit else await _read_body(receive, limit)
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


async def _read_body(receive: Receive, limit: int) -> bytes | None:
    """Return the body; None if it is larger than `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)  # the client has disconnected, which the app notices itself
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)
