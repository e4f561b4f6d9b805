"""Operational metrics of one worker process, for Prometheus. Metrics of the counts are the monitor's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from functools import partial

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from binwatch.errors import MetadataReason, Reason
from binwatch.keys import Skipped
from binwatch.version import version
from worker.inference_sessions import Inferred
from worker.pipeline import Infers

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PHOTOS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PROMISED_S = 60
"""Within so many seconds of its upload a photo is to be counted: the objective of the alert BinwatchPhotosLate."""


class PhotoStage(StrEnum):
    """Where a photo's time goes."""

    FETCH = "fetch"
    DECODE = "decode"
    INFER = "infer"
    RECORD = "record"


class PeriodicStep(StrEnum):
    """What a worker tells of a task that beat sends."""

    START = "start"
    SUCCESS = "success"


class WorkerMetrics:
    """The metrics of one process, in a registry of their own. Safe to use from several threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._photos = counter("binwatch_worker_photos", "Photos by outcome and reason", ["outcome", "reason"])
        self._metadata = counter("binwatch_worker_metadata_files", "Metadata files by reason", ["reason"])
        self.retried = counter("binwatch_worker_retried_tasks", "Tasks to be retried because of an outage")
        self._events = counter("binwatch_worker_event_messages", "Event messages by outcome", ["outcome"])
        self._skipped = counter("binwatch_worker_skipped_objects", "Skipped objects and events by reason", ["reason"])
        self.refused_requests = counter(
            "binwatch_worker_refused_requests",
            "Requests to count photos that were refused because too many were in flight",
        )
        self.nightly_failures = counter("binwatch_worker_nightly_failures", "Failed starts and steps of nightly runs")
        self.nightly_seconds = counter(
            "binwatch_worker_nightly_instance_seconds",
            "What SageMaker bills for nightly runs that ended: seconds of all instances",
        )
        self.refused_models = counter(
            "binwatch_worker_refused_models",
            "Times that a promoted model could not be put in use, so that another stayed in use",
        )
        self._batches = histogram("binwatch_worker_batch_photos", "Photos in one inference call", buckets=_PHOTOS)
        self._stages = histogram(
            "binwatch_worker_stage_seconds",
            "Seconds of one fetch, one decode, one inference call, one transaction",
            ["stage"],
            buckets=_SECONDS,
        )
        self._latency = histogram(
            "binwatch_worker_photo_age_seconds",
            "Seconds from S3's storing a photo to its first record, of photos stored since Binwatch has been counting",
            buckets=(0.25, 0.5, 1, 2.5, 5, 10, 30, PROMISED_S, 300, 1800, 7200, 86400),
        )
        self._oldest = gauge(
            "binwatch_worker_queue_oldest_seconds",
            "Age of the oldest message when this worker last received some; 0 if none was waiting",
            ["queue"],
        )
        self._depths = gauge("binwatch_worker_queue_messages", "Messages that wait in a queue", ["queue"])
        self._periodic = gauge(
            "binwatch_worker_periodic_task_timestamp_seconds",
            "When this worker last started a task of beat's schedule, and when one last succeeded",
            ["task", "step"],
        )
        self._deadlines = gauge(
            "binwatch_worker_periodic_task_deadline_timestamp_seconds",
            "By when the next should have started, or succeeded, going by this worker's last one or else its own start",
            ["task", "step"],
        )
        self._next_deadline: dict[str, Callable[[], float]] = {}
        self._model = Info("binwatch_worker_model", "Model in use", registry=self.registry)
        ProcessCollector(registry=self.registry)  # its start tells a restart; its memory, what it was killed for
        Info("binwatch_build", "Release of Binwatch", registry=self.registry).info({"version": version()})
        self.event_messages = 0
        """How many event messages this worker has handled."""
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        """Make every series of a counter: one that appears with its first increase misses that in `increase()`."""
        for stage in PhotoStage:
            self._stages.labels(stage)
        self._photos.labels("counted", "")
        for reason in Reason:
            self._photos.labels("failed", reason)
        for skipped in Skipped:
            self._skipped.labels(skipped)
        for why in ("", *MetadataReason):
            self._metadata.labels(why)
        for outcome in ("published", "rejected"):
            self._events.labels(outcome)

    @contextmanager
    def timed(self, stage: PhotoStage) -> Iterator[None]:
        """Measure what is done inside, whether it raises or not."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._stages.labels(stage).observe(time.perf_counter() - started)

    def photo(self, reason: str | None) -> None:
        """One photo was counted, or failed for a reason."""
        self._photos.labels("failed" if reason else "counted", reason or "").inc()

    def waited(self, age_s: float) -> None:
        """A photo that waited to be counted got its first record, so many seconds after the store had it."""
        self._latency.observe(max(0.0, age_s))

    def metadata(self, reason: str | None) -> None:
        """One metadata file was recorded."""
        self._metadata.labels(reason or "").inc()

    def batch(self, photos: int) -> None:
        """One inference call on so many photos."""
        self._batches.observe(photos)

    def messages(self, *, published: int, rejected: int) -> None:
        """So many event messages became tasks, or were dead-lettered."""
        self.event_messages += published + rejected
        self._events.labels("published").inc(published)
        self._events.labels("rejected").inc(rejected)

    def skipped(self, counts: Mapping[Skipped, int]) -> None:
        """So many objects and events were skipped, by reason."""
        for reason, number in counts.items():
            self._skipped.labels(reason).inc(number)

    def oldest(self, queue: str, age_s: float) -> None:
        """Age of the oldest message received just now from the queue "events" or "tasks"."""
        self._oldest.labels(queue).set(max(0.0, age_s))

    def depths(self, depths: Mapping[str, int]) -> None:
        """Messages that wait, by queue; those that are not named are not known."""
        self._depths.clear()
        for queue, messages in depths.items():
            self._depths.labels(queue).set(messages)
        if depths.get("tasks") == 0:  # or the age of the last one would stay for as long as no other comes
            self.oldest("tasks", 0)

    def expect(self, task: str, next_deadline: Callable[[], float]) -> None:
        """Beat sends `task`. `next_deadline` tells, in seconds since 1970, by when the next one is to be through."""
        self._next_deadline[task] = next_deadline
        for step in PeriodicStep:
            self._deadlines.labels(task, step).set(next_deadline())

    def periodic(self, task: str, step: PeriodicStep) -> None:
        """A task of beat's schedule was started, or has succeeded."""
        self._periodic.labels(task, step).set_to_current_time()
        if task in self._next_deadline:
            self._deadlines.labels(task, step).set(self._next_deadline[task]())

    def model(self, version: str, precision: str, provider: str, self_check: str) -> None:
        """Another model is in use, or the first."""
        self._model.info({"version": version, "precision": precision, "provider": provider, "self_check": self_check})


class InstrumentedEngine:
    """An engine whose calls are measured."""

    def __init__(self, engine: Infers, metrics: WorkerMetrics) -> None:
        self._engine = engine
        self._metrics = metrics

    def infer(self, photos: npt.NDArray[np.uint8]) -> Inferred:
        """As the engine does."""
        self._metrics.batch(len(photos))
        with self._metrics.timed(PhotoStage.INFER):
            return self._engine.infer(photos)
