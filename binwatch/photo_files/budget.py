"""How much memory photos that are being decoded take together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Condition


class Budget:
    """Bytes to share between threads. Who needs more than is left waits, and those who come later wait behind: else a
    large photo would never have its turn."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._line: deque[object] = deque()
        self._changed = Condition()

    @contextmanager
    def taking(self, amount: int) -> Iterator[None]:
        """Hold so many bytes in the `with` block. One that needs more than all has all of it for itself."""
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
    """The one of this process: whatever decodes photos with the same limits shares it."""
    return Budget(total)
