"""The server of worker and monitor: uvicorn, with limits on what clients may take."""

from __future__ import annotations

import uvicorn

from binwatch.web.connections import Connection, ConnectionLimits, ServerConfig
from binwatch.web.requests import App

SPARE = 128
"""Connections beside those that requests in flight can have: of clients that connect, or keep one open between two."""
BACKLOG = 128
"""Connections that asyncio accepts in one turn of its event loop: it closes none meanwhile, and files have a limit."""


def make_config(app: App, requests: int, *, grace_s: int, limits: ConnectionLimits | None = None) -> uvicorn.Config:
    """uvicorn's configuration for an app with at most so many `requests` in flight.

    `grace_s`: how long requests may take to finish after the signal to stop.
    """
    config = ServerConfig(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # a line for each scrape or photo would bury the others
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=grace_s,
    )
    config.limits = limits or ConnectionLimits(connections=requests + SPARE)
    return config
