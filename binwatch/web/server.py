"""The HTTP server of worker and monitor: uvicorn with limits for clients."""

from __future__ import annotations

import uvicorn

from binwatch.web.connections import Connection, ConnectionLimits, ServerConfig
from binwatch.web.requests import App

SPARE_CONNECTIONS = 128
"""Connections without a request in flight: of new clients, and of clients that keep a connection open."""
BACKLOG = 128
"""Connections that asyncio accepts per iteration of its event loop, in which it closes none; open files are limited."""


def make_config(app: App, requests: int, *, grace_s: int, limits: ConnectionLimits | None = None) -> uvicorn.Config:
    """uvicorn's configuration for an app with at most `requests` requests in flight.

    `grace_s`: seconds for requests to finish after the signal to stop.
    """
    config = ServerConfig(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # a line per scrape or photo would bury the others
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=grace_s,
    )
    config.limits = limits or ConnectionLimits(connections=requests + SPARE_CONNECTIONS)
    return config
