"""Detect a worker that is connected to the broker and yet receives no tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from binwatch.errors import BinwatchError
from binwatch.text import count_noun

MAX_STARVATION_S = 120.0
"""Far longer than a broker takes to deliver a waiting task, or Celery to reconnect."""


class ConsumerStalled(BinwatchError):
    """Tasks are waiting, and this worker receives none."""


class StarvationCheck:
    """Measures how long tasks have been waiting while this worker was idle. Thread-safe."""

    def __init__(self, limit_s: float = MAX_STARVATION_S) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._n_in_flight = 0
        self._n_waiting = 0
        self._starved_since: float | None = None

    @contextmanager
    def track_task(self) -> Iterator[None]:
        """Count a task as in flight during the `with` block."""
        with self._lock:
            self._n_in_flight += 1
            self._starved_since = None
        try:
            yield
        finally:
            with self._lock:
                self._n_in_flight -= 1

    def observe(self, depths: Mapping[str, int]) -> None:
        """Update the number of waiting tasks. If it is unknown, because "tasks" is not in `depths`, it counts as 0."""
        with self._lock:
            self._n_waiting = depths.get("tasks", 0)
            if not self._n_waiting or self._n_in_flight:
                self._starved_since = None
            elif self._starved_since is None:
                self._starved_since = time.monotonic()

    def check(self) -> None:
        """Raise ConsumerStalled if this worker has been idle for too long while tasks waited."""
        with self._lock:
            idle_s = 0.0 if self._starved_since is None else time.monotonic() - self._starved_since
            if idle_s > self._limit_s:
                raise ConsumerStalled(
                    f"{count_noun(self._n_waiting, 'task waits', 'tasks wait')}, and none was received for"
                    f" {idle_s:.0f} s; restart the worker"
                )
