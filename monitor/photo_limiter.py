"""Concurrency limit for photos: a few are decoded at a time, and a bounded number wait."""

from __future__ import annotations

from collections.abc import Callable

from anyio import CapacityLimiter, to_thread

from binwatch.errors import ObjectsError

MAX_CONCURRENT = 4
"""Maximum number of photos fetched and decoded at a time. Each may take `max_photo_bytes` and its pixels in memory."""
MAX_WAITING = 64
"""Maximum number of waiting photos; others are refused immediately. While the object store hangs, requests for photos
stay open, even if their page was closed. Without a limit, the server would soon accept no requests, not even a
scrape."""


class PhotoLimiter:
    """Runs functions in threads, a limited number at a time. Each event loop needs its own."""

    def __init__(self, max_concurrent: int = MAX_CONCURRENT, max_waiting: int = MAX_WAITING) -> None:
        self._limiter = CapacityLimiter(max_concurrent)
        self._free_slots = max_concurrent + max_waiting

    async def run(self, make: Callable[[], bytes]) -> bytes:
        """Run `make` in a thread and return its result. Raises ObjectsError if too many photos are waiting."""
        if not self._free_slots:
            raise ObjectsError("too many photos are waiting for the object store")
        self._free_slots -= 1
        try:
            return await to_thread.run_sync(make, limiter=self._limiter)
        finally:
            self._free_slots += 1
