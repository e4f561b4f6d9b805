"""The serving process: listens, loads the model, counts until SIGTERM, and finishes the requests in flight."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from binwatch.listening import is_loopback, listen
from binwatch.sagemaker.settings import TransformEnvironment
from binwatch.settings import Settings
from binwatch.web.requests import RequestLimit, send_unavailable
from binwatch.web.server import make_config
from worker.metrics import WorkerMetrics
from worker.sagemaker.serving.app import App
from worker.sagemaker.serving.counter import PhotoCounter
from worker.sagemaker.serving.model import in_sagemaker, load_engine

logger = logging.getLogger(__name__)

_LOOPBACK, _ALL_INTERFACES = "127.0.0.1", "0.0.0.0"  # noqa: S104 (SageMaker requires it)

_EXTRA_REQUESTS = 32
"""Number of requests allowed in flight beyond the app's limit, such as those that it is refusing."""
_GRACE_S = 25
"""Seconds for requests to finish after SIGTERM. SageMaker kills the container after 30 s."""


class Server(uvicorn.Server):
    """Serves the app even while the model is being loaded, so that /ping is always answered."""

    def __init__(self, settings: Settings, app: App, metrics: WorkerMetrics) -> None:
        limited = RequestLimit(app, app.max_requests + _EXTRA_REQUESTS, ["/ping", "/metrics"], send_unavailable)
        super().__init__(make_config(limited, limited.total, grace_s=_GRACE_S))
        self.error: Exception | None = None
        self._settings = settings
        self._app = app
        self._metrics = metrics

    def load(self) -> None:
        """Load the model, or stop the server if that fails, since the container could then never count."""
        try:
            self._app.counter = PhotoCounter(load_engine(self._settings), self._settings, self._metrics)
        except Exception as error:  # raised by `serve` once the server has stopped
            self.error = error
            self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals as uvicorn does, but do not raise them again at the end, since a stop is not a failure."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)
        yield

    def _stop(self, _: int, __: FrameType | None) -> None:
        logger.info("stopping after the requests in flight")
        self.should_exit = True


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises BinwatchError if the port or the model cannot be used."""
    environment = TransformEnvironment()
    is_outside_sagemaker = not in_sagemaker(settings, environment)
    # SageMaker connects from outside the container. Elsewhere, anyone who can reach the port can have photos counted,
    # including the bucket's.
    host = settings.serve_host or (_LOOPBACK if is_outside_sagemaker else _ALL_INTERFACES)
    listener = listen(host, settings.serve_port, "set BINWATCH_SERVE_HOST and BINWATCH_SERVE_PORT")
    logger.info("listening on %s port %d", *listener.getsockname()[:2])
    if is_outside_sagemaker and not is_loopback(listener):
        logger.warning(
            "anyone who can reach this port can have photos counted, including the bucket's; see docs/sagemaker.md"
        )
    metrics = WorkerMetrics()
    app = App(settings, environment, metrics)
    server = Server(settings, app, metrics)
    loading = threading.Thread(target=server.load, name="load", daemon=True)
    loading.start()
    server.run(sockets=[listener])
    loading.join()
    if app.counter is not None:
        app.counter.close()
    if server.error is not None:
        raise server.error
