"""Limit on concurrent requests, with reserved capacity for health checks and scrapes."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.types import ASGIApp

from binwatch.web.requests import MAX_REQUESTS_PER_PROBE, RequestLimit
from monitor.access.refusals import refuse

MAX_REQUESTS: Final = 128
"""Maximum number of concurrent requests, each with at most one thread. Further requests are answered with 503
immediately. The limit is far above what people need."""
PROBE_PATHS: Final = ("/healthz", "/metrics")
"""Paths with reserved capacity."""
MAX_TOTAL_REQUESTS: Final = MAX_REQUESTS + MAX_REQUESTS_PER_PROBE * len(PROBE_PATHS)
"""Maximum number of concurrent requests, including the reserved capacity."""


def limit_requests(app: ASGIApp) -> ASGIApp:
    """Wrap an app so that it handles at most MAX_REQUESTS concurrent requests, plus the reserved ones."""
    detail = "too many requests are in flight; try again in a moment"
    return RequestLimit(app, MAX_REQUESTS, PROBE_PATHS, partial(refuse, status=503, detail=detail))
