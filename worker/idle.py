"""Whether a worker is handed tasks: one that is connected may hear nothing all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from binwatch.errors import BinwatchError

LIMIT_S = 120.0
"""Far longer than a broker needs to hand over a task that waits, or Celery to connect again."""


class Deaf(BinwatchError):
    """Tasks wait, and this worker is not handed any."""


class IdleCheck:
    """Knows since when tasks have waited while this worker had nothing to do. Safe to use from several threads."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._in_hand = 0
        self._waiting = 0
        self._since: float | None = None

    @contextmanager
    def task(self) -> Iterator[None]:
        """A task is in hand for as long as the context lasts."""
        with self._lock:
            self._in_hand += 1
            self._since = None
        try:
            yield
        finally:
            with self._lock:
                self._in_hand -= 1

    def saw(self, depths: Mapping[str, int]) -> None:
        """So many messages wait in each queue now; one that is not named is not known."""
        with self._lock:
            self._waiting = depths.get("tasks", 0)
            if not self._waiting or self._in_hand:
                self._since = None
            elif self._since is None:
                self._since = time.monotonic()

    def check(self) -> None:
        """Raise Deaf if this worker has been idle for too long while tasks waited."""
        with self._lock:
            idle_s = 0.0 if self._since is None else time.monotonic() - self._since
            if idle_s > self._limit_s:
                raise Deaf(
                    f"{self._waiting} tasks wait, and none was handed over for {idle_s:.0f} s; restart the worker"
                )
