"""Middleware for every response, errors included: security headers, and HEAD."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.access.proxies import relative_path

SECURITY_HEADERS = {
    # Only our own styles, photos and the script with keyboard shortcuts are loaded, so the key of a photo cannot
    # inject others.
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer, which makes browsers send `Origin: null` with forms: those of other sites could not be detected.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_CACHE_CONTROL = "no-store"
"""Default, because figures are current only when they are sent. Responses may override it."""
_STATIC_CACHE_CONTROL = "no-cache"
"""Static files may be cached if the browser revalidates them: they change with the release."""


class SecurityHeaders:
    """Middleware that adds the headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                is_static = relative_path(HTTPConnection(scope)).startswith("/static/")
                headers.setdefault("Cache-Control", _STATIC_CACHE_CONTROL if is_static else _CACHE_CONTROL)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class HeadAsGet:
    """Middleware that passes HEAD requests on as GET. The server omits the body of the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send)
