"""The HTTP server."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn
from anyio import to_thread
from starlette.types import ASGIApp

from binwatch.errors import BinwatchError
from binwatch.web.server import make_config
from monitor.access.limits import MAX_TOTAL_REQUESTS

GRACE_S = 5
"""Time for requests to finish after the signal to stop. Docker kills the process after 10 s."""


def address_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def write_port(path: Path, listener: socket.socket) -> None:
    """Write the bound port atomically, so that nobody who waits for the file reads half a number."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(f"{listener.getsockname()[1]}\n", encoding="ascii")
        partial.replace(path)
    except OSError as error:
        raise BinwatchError(
            f"{path}: the port cannot be written there ({error.strerror}); name another file"
        ) from error


class MonitorServer(uvicorn.Server):
    """Server that calls `ready` once requests are accepted."""

    def __init__(self, app: ASGIApp, ready: Callable[[], None]) -> None:
        super().__init__(make_config(app, MAX_TOTAL_REQUESTS, grace_s=GRACE_S))
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and then call `ready`."""
        # Starlette runs routes on 40 threads by default: /healthz would queue behind slow requests.
        to_thread.current_default_thread_limiter().total_tokens = MAX_TOTAL_REQUESTS
        await super().startup(sockets)
        self._ready()


def serve(app: ASGIApp, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT. Calls `ready` once requests are accepted."""
    # uvicorn finishes its requests and then raises the signal again. By then, nothing is left to do but exit.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    MonitorServer(app, ready).run(sockets=[listener])
