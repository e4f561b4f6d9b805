"""The worker's own port: `/metrics` for Prometheus and `/healthz` for health checks."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from binwatch.errors import BinwatchError, SettingsError
from binwatch.listening import listen
from binwatch.web.requests import Receive, Reply, RequestLimit, Scope, Send, send_reply, send_unavailable
from binwatch.web.server import make_config
from worker.health import HealthChecks

_MAX_OTHER_REQUESTS = 8
"""Maximum number of requests in flight to unknown paths."""
_SHUTDOWN_GRACE_S = 1


class StatusServer:
    """Serves on its own thread, from `start` to `stop`. Raises SettingsError if the port is not available."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: HealthChecks) -> None:
        try:
            self._listener = listen(host, port, "set BINWATCH_WORKER_PORT (or _HOST) to a free one")
        except BinwatchError as error:
            raise SettingsError(str(error)) from error
        self.port = int(self._listener.getsockname()[1])
        """Port that the server listens on."""

        def metrics() -> Reply:
            return Reply(200, CONTENT_TYPE_LATEST, generate_latest(registry))

        def healthz() -> Reply:
            problems = health.problems()
            body = json.dumps({"healthy": not problems, "problems": problems}).encode()
            return Reply(503 if problems else 200, "application/json", body)

        app = _App({"/metrics": metrics, "/healthz": healthz})
        limited = RequestLimit(app, _MAX_OTHER_REQUESTS, app.routes, send_unavailable)
        self._server = uvicorn.Server(make_config(limited, limited.total, grace_s=_SHUTDOWN_GRACE_S))
        sockets = {"sockets": [self._listener]}
        self._thread = threading.Thread(target=self._server.run, kwargs=sockets, name="status", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop, and close the port."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._listener.close()


class _App:
    def __init__(self, routes: dict[str, Callable[[], Reply]]) -> None:
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self.routes.get(scope["path"])
        if route is None:
            reply = Reply(404, "text/plain", b"/metrics or /healthz\n")
        elif scope["method"] not in ("GET", "HEAD"):
            reply = Reply(405, "text/plain", b"GET or HEAD\n")
        else:
            reply = await _run_on_thread(route)
        await send_reply(send, reply)


async def _run_on_thread(route: Callable[[], Reply]) -> Reply:
    """Run `route` on a daemon thread, so that a hanging probe does not prevent the worker from exiting."""
    future: Future[Reply] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(route())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="probe", daemon=True).start()
    return await asyncio.wrap_future(future)
