"""Starvation check: a worker may be connected to the broker and yet receive no tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from binwatch.errors import BinwatchError
from binwatch.text import count_noun

LIMIT_S = 120.0
"""Far longer than a broker takes to deliver a waiting task, or Celery to reconnect."""


class ConsumerStalled(BinwatchError):
    """Tasks wait, and this worker receives none."""


class StarvationCheck:
    """Measures how long tasks have waited while this worker was idle. Thread-safe."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._in_flight = 0
        self._waiting = 0
        self._since: float | None = None

    @contextmanager
    def task(self) -> Iterator[None]:
        """A task is in flight in the `with` block."""
        with self._lock:
            self._in_flight += 1
            self._since = None
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def observe(self, depths: Mapping[str, int]) -> None:
        """Note the number of waiting messages by queue; it is unknown for queues that are missing."""
        with self._lock:
            self._waiting = depths.get("tasks", 0)
            if not self._waiting or self._in_flight:
                self._since = None
            elif self._since is None:
                self._since = time.monotonic()

    def check(self) -> None:
        """Raise ConsumerStalled if this worker has been idle for too long while tasks waited."""
        with self._lock:
            idle_s = 0.0 if self._since is None else time.monotonic() - self._since
            if idle_s > self._limit_s:
                raise ConsumerStalled(
                    f"{count_noun(self._waiting, 'task waits', 'tasks wait')}, and none was received for"
                    f" {idle_s:.0f} s; restart the worker"
                )
