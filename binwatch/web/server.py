"""Configures the HTTP server of the worker and the monitor: uvicorn with limits for clients."""

from __future__ import annotations

import uvicorn

from binwatch.web.connections import Connection, ConnectionLimits, ServerConfig
from binwatch.web.requests import App

SPARE_CONNECTIONS = 128
"""Number of connections beyond the requests in flight: those of new clients, and idle ones that clients keep open."""
BACKLOG = 128
"""Maximum number of connections that asyncio accepts per iteration of its event loop. It closes none of them in the
same iteration, and the number of open files is limited."""


def make_config(app: App, max_requests: int, *, grace_s: int, limits: ConnectionLimits | None = None) -> uvicorn.Config:
    """Make uvicorn's configuration for an app with at most `max_requests` requests in flight.

    `grace_s`: seconds that requests may take to finish after the signal to stop.
    """
    config = ServerConfig(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # a line per scrape or photo would bury all others
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=grace_s,
    )
    config.limits = limits or ConnectionLimits(connections=max_requests + SPARE_CONNECTIONS)
    return config
