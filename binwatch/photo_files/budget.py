"""Limits the total memory of the photos that are being decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Condition


class MemoryBudget:
    """A number of bytes shared between threads.

    Threads wait in the order of their calls until enough bytes are free, so small photos cannot delay a large one
    indefinitely.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._queue: deque[object] = deque()
        self._changed = Condition()

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Reserve `size` bytes for the `with` block, but at most the whole budget."""
        size = min(size, self._total)
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                self._changed.wait_for(lambda: self._queue[0] is ticket and self._used + size <= self._total)
                self._used += size
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()


@cache
def shared_budget(total: int) -> MemoryBudget:
    """Return the one budget of `total` bytes that all threads of this process share."""
    return MemoryBudget(total)
