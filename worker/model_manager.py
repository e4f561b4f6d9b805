"""Load the model in use (the promoted one, or else the bundle of the settings), and swap it between groups."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
from sqlalchemy.exc import SQLAlchemyError

from binwatch.bundle import Bundle, Card, Precision
from binwatch.errors import BinwatchError, ObjectsError
from binwatch.objects import Objects
from binwatch.records.engine import driver_message
from binwatch.registry import Registry
from binwatch.settings import Settings
from worker.engine import Engine
from worker.metrics import WorkerMetrics

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0
"""Maximum wait for the polling thread, which may be fetching a model. Far less than the worker's grace period."""


class ModelManager:
    """Holds the engine in use. A group of photos reads `engine` once, so a swap never mixes two models in a group."""

    def __init__(
        self, settings: Settings, objects: Objects, metrics: WorkerMetrics, record_model: Callable[[Card], datetime]
    ) -> None:
        """`record_model` records a model in use, and returns the time when it was first recorded."""
        self._settings = settings
        self._metrics = metrics
        self._record_model = record_model
        self._registry = Registry(objects, settings.bucket, settings.models_prefix)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll_until_stopped, name="models", daemon=True)
        self._use(self._load_initial())

    @property
    def engine(self) -> Engine:
        """The engine in use."""
        return self._engine

    def start(self) -> None:
        """Start polling for newly promoted models."""
        self._thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def poll(self) -> None:
        """Swap to the promoted model if it has changed. If it cannot be used, the current one stays in use."""
        try:
            current = self._registry.current()
            if current is None or current.version == self._engine.card.version:
                return
            engine = self._open(fetch_bundle(self._registry, current.version, self._settings))
            recorded_at = self._record_model(engine.card)
            if self._wait_for_scrape(recorded_at) or self._registry.current() != current:
                return  # the worker is stopping, or another model was promoted meanwhile
        except SQLAlchemyError as error:
            logger.warning(
                "model: the promoted model cannot be added to the records (%s); %s stays in use until the next poll",
                driver_message(error),
                self._engine.card.version,
            )
            return
        except BinwatchError as error:
            logger.warning("model: %s; %s stays in use", error, self._engine.card.version)
            if not isinstance(error, ObjectsError):  # an outage is not the model's fault
                self._metrics.refused_models.inc()
            return
        logger.info("model: %s replaces %s", engine.card.version, self._engine.card.version)
        self._use(engine)

    def _wait_for_scrape(self, recorded_at: datetime) -> bool:
        """Wait until the counters of a new model have been scraped at 0; return whether the worker is stopping.

        The counters exist from `recorded_at` on. If they grew before the first scrape, `increase()` would miss the
        model's first photos.
        """
        settle_s = self._settings.model_settle_s
        remaining_s = settle_s - (datetime.now(UTC) - recorded_at).total_seconds()
        return self._stopping.wait(min(max(remaining_s, 0.0), settle_s))

    def check(self) -> None:
        """Raise unless the model in use can count a blank photo."""
        side = self._engine.card.input_size
        self._engine.infer(np.zeros((1, side, side, 3), np.uint8))

    def _use(self, engine: Engine) -> None:
        self._engine = engine
        self._metrics.set_model(engine.card.version, engine.precision, engine.provider, engine.self_check)

    def _load_initial(self) -> Engine:
        try:
            current = self._registry.current()
            if current is not None:
                return self._open(fetch_bundle(self._registry, current.version, self._settings))
        except ObjectsError as error:
            # Without S3, no photo can be counted with a wrong model either; the next poll swaps to the right one.
            logger.warning("model: %s; starting with the one in %s", error, self._settings.model_dir)
        return self._open(Bundle(self._settings.model_dir))

    def _poll_until_stopped(self) -> None:
        while not self._stopping.wait(self._settings.model_poll_s):
            try:
                self.poll()
            except Exception:  # of any kind: the thread must survive to load the next model
                logger.exception("model: polling for a promoted model failed; it is retried")

    def _open(self, bundle: Bundle) -> Engine:
        engine = Engine.from_settings(bundle, self._settings)
        engine.warm_up()
        return engine


def fetch_bundle(registry: Registry, version: str, settings: Settings) -> Bundle:
    """Fetch a published bundle, with the variant of the settings, or all variants that `auto` may choose."""
    precisions = [Precision.FP16, Precision.INT8, Precision.FP32]
    if settings.precision.value != "auto":
        precisions = [Precision(settings.precision.value)]
    return registry.fetch(version, precisions, settings.model_cache)


def promoted_bundle(settings: Settings) -> Bundle:
    """Return the promoted bundle, or that of the settings if none was promoted. Raises ObjectsError in an outage."""
    registry = Registry(Objects(settings), settings.bucket, settings.models_prefix)
    current = registry.current()
    return fetch_bundle(registry, current.version, settings) if current else Bundle(settings.model_dir)
