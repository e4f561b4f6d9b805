"""Concurrency limit for photos: a few are made at a time, and the queue of those that wait is bounded."""

from __future__ import annotations

from collections.abc import Callable

from anyio import CapacityLimiter, to_thread

from binwatch.errors import ObjectsError

AT_A_TIME = 4
"""Photos fetched and decoded at a time; more wait. Each may take `max_photo_bytes` and its pixels in memory."""
WAITING = 64
"""Photos that wait at most; more are refused at once. While the object store hangs, requests for photos stay, even if
their page was closed. Without a limit, the server would soon accept no request at all, not even a scrape."""


class PhotoLimiter:
    """Runs work in threads. For one event loop."""

    def __init__(self, at_a_time: int = AT_A_TIME, waiting: int = WAITING) -> None:
        self._limiter = CapacityLimiter(at_a_time)
        self._places = at_a_time + waiting

    async def run(self, make: Callable[[], bytes]) -> bytes:
        """What `make` returns. Raises ObjectsError if the queue is full."""
        if not self._places:
            raise ObjectsError("too many photos wait for the object store")
        self._places -= 1
        try:
            return await to_thread.run_sync(make, limiter=self._limiter)
        finally:
            self._places += 1
