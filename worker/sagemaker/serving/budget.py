"""Bytes that all requests together may hold in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class OverBudget(Exception):
    """Other requests hold what may be held."""


class _WaitingShare(NamedTuple):
    number: int
    granted: asyncio.Future[None]


class ByteBudget:
    """Gives out bytes. Of one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.free = most
        self._waiting: deque[_WaitingShare] = deque()

    @contextmanager
    def share(self) -> Iterator[Share]:
        """A share that is given back at the end of the block, whatever it has grown to."""
        share = Share(self)
        try:
            yield share
        finally:
            share.resize(0)

    def take(self, number: int) -> None:
        """Raise OverBudget unless so many bytes are free."""
        if number > self.free:
            raise OverBudget
        self.free -= number

    async def take_once_free(self, number: int) -> None:
        """Wait for so many bytes; who came first gets them first."""
        if number <= self.free and not self._waiting:
            self.free -= number
            return
        waiting = _WaitingShare(number, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            await waiting.granted
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif not waiting.granted.cancelled():
                self.give_back(number)  # granted, but nobody is there any more
            raise

    def give_back(self, number: int) -> None:
        """Those bytes are free again."""
        self.free += number
        while self._waiting and self._waiting[0].number <= self.free:
            first = self._waiting.popleft()
            if not first.granted.cancelled():
                self.free -= first.number
                first.granted.set_result(None)


class Share:
    """What one request holds."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._size = 0

    def resize(self, size: int) -> None:
        """Hold `size` bytes from now on. Raises OverBudget."""
        if size > self._size:
            self._budget.take(size - self._size)
        else:
            self._budget.give_back(self._size - size)
        self._size = size

    async def reserve(self, size: int) -> None:
        """Hold `size` bytes, or the whole budget, once they are free. Of a share that holds none yet."""
        size = min(size, self._budget.most)
        await self._budget.take_once_free(size)
        self._size = size
