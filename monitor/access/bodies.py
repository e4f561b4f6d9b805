"""A limit on what a request may send, enforced before anything is parsed."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.access.answers import refuse

MAX_BYTES = 16_384
"""Bytes of a body: the largest form that the monitor has needs a tenth."""
_TOO_LARGE = f"the body is over the limit of {MAX_BYTES:,} bytes; an audit needs far less"


class BodyLimit:
    """Wraps an app that then gets bodies of at most MAX_BYTES, whole; larger ones are answered 413."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        body = None if not announced.isdigit() or int(announced[:9]) > MAX_BYTES else await _whole(receive)
        if body is None:
            await refuse(scope, receive, send, 413, _TOO_LARGE)
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)


async def _whole(receive: Receive) -> bytes | None:
    """The body; None if it is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)  # the client has gone; the app finds out by itself
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BYTES:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)
