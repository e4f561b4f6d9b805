"""How many requests the monitor has in flight, with a way in for what watches it."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from binwatch.web.requests import PROBES_AT_ONCE, RequestLimit
from monitor.access.refusals import refuse

MAX_REQUESTS: Final = 128
"""Requests in flight, each with a thread at most; more are answered 503 at once. Far beyond what people need."""
PROBES: Final = ("/healthz", "/metrics")
IN_FLIGHT: Final = MAX_REQUESTS + PROBES_AT_ONCE * len(PROBES)


def limited(app: ASGIApp) -> ASGIApp:
    """The app with at most so many requests in flight."""
    return RequestLimit(app, MAX_REQUESTS, PROBES, _overloaded)


async def _overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    await refuse(scope, receive, send, 503, "too many requests are in flight; try again in a moment")
