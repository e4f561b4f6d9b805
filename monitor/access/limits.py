"""A limit on the requests in flight, with reserved capacity for probes and scrapes."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.types import ASGIApp

from binwatch.web.requests import MAX_REQUESTS_PER_PROBE, RequestLimit
from monitor.access.refusals import refuse

MAX_REQUESTS: Final = 128
"""Requests in flight, each with a thread at most; more are answered 503 at once. Far beyond what people need."""
PROBES: Final = ("/healthz", "/metrics")
IN_FLIGHT: Final = MAX_REQUESTS + MAX_REQUESTS_PER_PROBE * len(PROBES)


def limited(app: ASGIApp) -> ASGIApp:
    """The app with at most MAX_REQUESTS in flight, beside those of PROBES."""
    detail = "too many requests are in flight; try again in a moment"
    return RequestLimit(app, MAX_REQUESTS, PROBES, partial(refuse, status=503, detail=detail))
