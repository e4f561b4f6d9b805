"""Operational metrics of one worker process, for Prometheus. The monitor exports the metrics of the counts."""

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
from binwatch.keys import SkipReason
from binwatch.version import version
from worker.inference_sessions import ModelOutput
from worker.pipeline import SupportsInfer

_DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PHOTO_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LATENCY_TARGET_S = 60
"""Seconds from upload to count that the alert BinwatchPhotosLate allows."""


class PhotoStage(StrEnum):
    """Stage of a photo's processing. A metric label."""

    FETCH = "fetch"
    DECODE = "decode"
    INFER = "infer"
    RECORD = "record"


class PeriodicStep(StrEnum):
    """Step of a periodic task. A metric label."""

    START = "start"
    SUCCESS = "success"


class WorkerMetrics:
    """The metrics of one process, in a registry of their own. Thread-safe."""

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
            "Instance seconds that SageMaker bills for finished nightly runs",
        )
        self.refused_models = counter(
            "binwatch_worker_refused_models",
            "Promoted models that could not be put in use, so that another stayed in use",
        )
        self._batches = histogram(
            "binwatch_worker_batch_photos", "Photos in one inference call", buckets=_PHOTO_BUCKETS
        )
        self._stages = histogram(
            "binwatch_worker_stage_seconds",
            "Seconds of one fetch, one decode, one inference call, one transaction",
            ["stage"],
            buckets=_DURATION_BUCKETS_S,
        )
        self._latency = histogram(
            "binwatch_worker_photo_age_seconds",
            "Seconds from a photo's upload to its first record, of photos stored since Binwatch has been counting",
            buckets=(0.25, 0.5, 1, 2.5, 5, 10, 30, LATENCY_TARGET_S, 300, 1800, 7200, 86400),
        )
        self._oldest = gauge(
            "binwatch_worker_queue_oldest_seconds",
            "Age of the oldest message when this worker last received messages; 0 if none was waiting",
            ["queue"],
        )
        self._depths = gauge("binwatch_worker_queue_messages", "Messages that wait in a queue", ["queue"])
        self._periodic = gauge(
            "binwatch_worker_periodic_task_timestamp_seconds",
            "Time of this worker's last start, and last success, of a periodic task",
            ["task", "step"],
        )
        self._deadlines = gauge(
            "binwatch_worker_periodic_task_deadline_timestamp_seconds",
            "Time by which the task should start or succeed again, counted from the last time or the worker's start",
            ["task", "step"],
        )
        self._next_deadline: dict[str, Callable[[], float]] = {}
        self._model = Info("binwatch_worker_model", "Model in use", registry=self.registry)
        ProcessCollector(registry=self.registry)  # the start time shows restarts, the memory out-of-memory kills
        Info("binwatch_build", "Release of Binwatch", registry=self.registry).info({"version": version()})
        self.event_messages = 0
        """Number of event messages that this worker has processed."""
        self._initialise_series()

    def _initialise_series(self) -> None:
        """Create all series of the counters at 0: `increase()` misses the first increase of a new series."""
        for stage in PhotoStage:
            self._stages.labels(stage)
        self._photos.labels("counted", "")
        for reason in Reason:
            self._photos.labels("failed", reason)
        for skipped in SkipReason:
            self._skipped.labels(skipped)
        for metadata_reason in ("", *MetadataReason):
            self._metadata.labels(metadata_reason)
        for outcome in ("published", "rejected"):
            self._events.labels(outcome)

    @contextmanager
    def timed(self, stage: PhotoStage) -> Iterator[None]:
        """Observe the duration of the `with` block, whether it raises or not."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._stages.labels(stage).observe(time.perf_counter() - started)

    def count_photo(self, reason: str | None) -> None:
        """Count a processed photo; `reason`: why it failed, or None if it was counted."""
        self._photos.labels("failed" if reason else "counted", reason or "").inc()

    def observe_photo_age(self, age_s: float) -> None:
        """Observe the age of a photo at its first record, in seconds since the upload."""
        self._latency.observe(max(0.0, age_s))

    def count_metadata_file(self, reason: str | None) -> None:
        """Count a recorded metadata file; `reason`: why it has no quantity, or None if it has one."""
        self._metadata.labels(reason or "").inc()

    def observe_batch(self, n_photos: int) -> None:
        """Observe the number of photos in an inference call."""
        self._batches.observe(n_photos)

    def count_event_messages(self, *, published: int, rejected: int) -> None:
        """Count event messages that became tasks (`published`) or were dead-lettered (`rejected`)."""
        self.event_messages += published + rejected
        self._events.labels("published").inc(published)
        self._events.labels("rejected").inc(rejected)

    def count_skipped(self, counts: Mapping[SkipReason, int]) -> None:
        """Count skipped objects and events, by reason."""
        for reason, count in counts.items():
            self._skipped.labels(reason).inc(count)

    def set_oldest_message_age(self, queue: str, age_s: float) -> None:
        """Set the age of the oldest of the messages last received from the queue "events" or "tasks"."""
        self._oldest.labels(queue).set(max(0.0, age_s))

    def set_queue_depths(self, depths: Mapping[str, int]) -> None:
        """Set the number of waiting messages by queue. The number of a queue that is not in `depths` is unknown."""
        self._depths.clear()
        for queue, messages in depths.items():
            self._depths.labels(queue).set(messages)
        if depths.get("tasks") == 0:  # otherwise the last task's age would stay until the next task
            self.set_oldest_message_age("tasks", 0)

    def expect_periodic_task(self, task: str, next_deadline: Callable[[], float]) -> None:
        """Register a periodic task; `next_deadline` returns the Unix time by which it should run again."""
        self._next_deadline[task] = next_deadline
        for step in PeriodicStep:
            self._deadlines.labels(task, step).set(next_deadline())

    def note_periodic_step(self, task: str, step: PeriodicStep) -> None:
        """Record that a periodic task has started or succeeded just now."""
        self._periodic.labels(task, step).set_to_current_time()
        if task in self._next_deadline:
            self._deadlines.labels(task, step).set(self._next_deadline[task]())

    def set_model(self, version: str, precision: str, provider: str, self_check: str) -> None:
        """Set the model in use."""
        self._model.info({"version": version, "precision": precision, "provider": provider, "self_check": self_check})


class InstrumentedEngine:
    """Wraps an engine, and measures its calls."""

    def __init__(self, engine: SupportsInfer, metrics: WorkerMetrics) -> None:
        self._engine = engine
        self._metrics = metrics

    def infer(self, photos: npt.NDArray[np.uint8]) -> ModelOutput:
        """Run `infer` of the wrapped engine, and observe its batch size and duration."""
        self._metrics.observe_batch(len(photos))
        with self._metrics.timed(PhotoStage.INFER):
            return self._engine.infer(photos)
