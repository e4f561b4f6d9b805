"""Middleware for every response, errors included: security headers, and HEAD."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.access.proxies import relative_path

SECURITY_HEADERS = {
    # Nothing is loaded but our own styles, photos and one file of keyboard shortcuts; whatever a key of the bucket
    # contains, it is no script.
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: browsers then send forms with `Origin: null`, and ours could not be told from a stranger's.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
FRESH = "no-store"
"""Figures are of now: no cache may keep them unless an answer says otherwise."""
CHECKED = "no-cache"
"""Styles may be kept, if the browser asks whether they are still the same: another release has others."""


class SecurityHeaders:
    """Wraps an app and adds the headers to each of its answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                headers.setdefault(
                    "Cache-Control", CHECKED if relative_path(HTTPConnection(scope)).startswith("/static/") else FRESH
                )
            await send(message)

        await self._app(scope, receive, send_with_headers)


class HeadAsGet:
    """Wraps an app that knows only GET. The server leaves the body out of what answers HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send)
