"""A limit on the bytes that all requests together hold in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class OverBudget(Exception):
    """Other requests hold too many bytes."""


class _WaitingShare(NamedTuple):
    number: int
    granted: asyncio.Future[None]


class ByteBudget:
    """The budget, for use on one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.free = most
        self._waiting: deque[_WaitingShare] = deque()

    @contextmanager
    def share(self) -> Iterator[Share]:
        """A share of the budget that is returned at the end of the block."""
        share = Share(self)
        try:
            yield share
        finally:
            share.resize(0)

    def take(self, number: int) -> None:
        """Take `number` bytes. Raises OverBudget unless they are free."""
        if number > self.free:
            raise OverBudget
        self.free -= number

    async def take_once_free(self, number: int) -> None:
        """Take `number` bytes once they are free, in the order of the calls."""
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
                self.give_back(number)  # granted meanwhile
            raise

    def give_back(self, number: int) -> None:
        """Return `number` bytes."""
        self.free += number
        while self._waiting and self._waiting[0].number <= self.free:
            first = self._waiting.popleft()
            if not first.granted.cancelled():
                self.free -= first.number
                first.granted.set_result(None)


class Share:
    """The bytes that one request holds."""

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
        """Hold `size` bytes, or the whole budget, once they are free. Only for an empty share."""
        size = min(size, self._budget.most)
        await self._budget.take_once_free(size)
        self._size = size
