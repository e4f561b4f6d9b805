"""Limits the number of bytes that all requests hold in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class OverBudget(Exception):
    """Too few bytes are free, since other requests hold the rest."""


class _WaitingShare(NamedTuple):
    size: int
    granted: asyncio.Future[None]


class ByteBudget:
    """A number of bytes shared between the requests of one event loop."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._waiting: deque[_WaitingShare] = deque()

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Open an empty share of the budget. Its bytes are returned at the end of the `with` block."""
        share = Share(self)
        try:
            yield share
        finally:
            share.resize(0)

    def take(self, size: int) -> None:
        """Take `size` bytes. Raises OverBudget unless they are free."""
        if size > self.free:
            raise OverBudget
        self.free -= size

    async def take_when_free(self, size: int) -> None:
        """Wait until `size` bytes are free, in the order of the calls, and take them."""
        if size <= self.free and not self._waiting:
            self.free -= size
            return
        waiting = _WaitingShare(size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            await waiting.granted
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif not waiting.granted.cancelled():
                self.give_back(size)  # granted in the meantime
            raise

    def give_back(self, size: int) -> None:
        """Return `size` bytes."""
        self.free += size
        while self._waiting and self._waiting[0].size <= self.free:
            first = self._waiting.popleft()
            if not first.granted.cancelled():
                self.free -= first.size
                first.granted.set_result(None)


class Share:
    """The bytes that one request holds."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._size = 0

    def resize(self, size: int) -> None:
        """Change the number of held bytes to `size`. Raises OverBudget."""
        if size > self._size:
            self._budget.take(size - self._size)
        else:
            self._budget.give_back(self._size - size)
        self._size = size

    async def reserve(self, size: int) -> None:
        """Wait until `size` bytes, or at most the whole budget, are free, and hold them. The share must be empty."""
        size = min(size, self._budget.total)
        await self._budget.take_when_free(size)
        self._size = size
