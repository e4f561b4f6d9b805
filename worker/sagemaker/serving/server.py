"""The serving process: listen, load the model, count until SIGTERM, finish the requests in flight."""

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

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104 (SageMaker requires it)

_OTHERS = 32
"""Further requests in flight besides the app's own limit, such as those that it refuses."""
GRACE_S = 25
"""Seconds for requests to finish after SIGTERM. SageMaker kills the container after 30 s."""


class Server(uvicorn.Server):
    """Serves the app while the model is loaded, so that /ping is answered from the start."""

    def __init__(self, settings: Settings, app: App, metrics: WorkerMetrics) -> None:
        limited = RequestLimit(app, app.most + _OTHERS, ["/ping", "/metrics"], send_unavailable)
        super().__init__(make_config(limited, limited.total, grace_s=GRACE_S))
        self.error: Exception | None = None
        self._settings = settings
        self._app = app
        self._metrics = metrics

    def load(self) -> None:
        """Load the model. If that fails, stop the server, since the container can never count."""
        try:
            self._app.counter = PhotoCounter(load_engine(self._settings), self._settings, self._metrics)
        except Exception as error:  # of any kind
            self.error = error
            self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Like uvicorn's, but without raising the signal again at the end: a stop is not a failure."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)
        yield

    def _stop(self, _: int, __: FrameType | None) -> None:
        logger.info("stopping after the requests in flight")
        self.should_exit = True


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises BinwatchError if there is no port or no model."""
    environment = TransformEnvironment()
    advice = "set BINWATCH_SERVE_HOST and BINWATCH_SERVE_PORT"
    is_ours_alone = not in_sagemaker(settings, environment)
    # SageMaker connects from outside the container. Elsewhere, anyone who can reach the port could have photos read.
    host = settings.serve_host or (LOOPBACK if is_ours_alone else EVERYWHERE)
    listener = listen(host, settings.serve_port, advice)
    logger.info("listening on %s port %d", *listener.getsockname()[:2])
    if is_ours_alone and not is_loopback(listener):
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
