"""A limit on the memory of all photos that are being decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Condition


class Budget:
    """Bytes shared between threads. A thread waits until enough are free, in the order of the calls, so that small
    photos do not delay a large one for ever."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._line: deque[object] = deque()
        self._changed = Condition()

    @contextmanager
    def taking(self, amount: int) -> Iterator[None]:
        """Hold `amount` bytes in the `with` block, or all bytes if that is less."""
        amount = min(amount, self._total)
        place = object()
        with self._changed:
            self._line.append(place)
            try:
                self._changed.wait_for(lambda: self._line[0] is place and self._used + amount <= self._total)
                self._used += amount
            finally:
                self._line.remove(place)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()


@cache
def budget_of(total: int) -> Budget:
    """The budget of this process with this limit."""
    return Budget(total)
