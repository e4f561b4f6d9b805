"""Counts the photos of a nightly run that SageMaker does not count.

They are counted in this process, since there may be no running worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from binwatch.errors import ObjectsError
from binwatch.events import ObjectCreated
from binwatch.settings import Settings
from binwatch.text import count_noun
from worker.counting import Counting

logger = logging.getLogger(__name__)

Recount = Callable[[Sequence[ObjectCreated]], object]
"""Function that has photos counted locally. It returns once they are recorded, or in the task queue."""

_MAX_ATTEMPTS = 6


class LocalCounting:
    """Counts photos in this process, as a worker does. The model is loaded for the first photos."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._counting: Counting | None = None

    def __call__(self, photos: Sequence[ObjectCreated]) -> None:
        """Count and record photos. Raises ObjectsError if an outage of S3 lasts longer than all retries."""
        if self._counting is None:
            self._counting = Counting(self._settings)
        size = self._settings.group_photos
        for start in range(0, len(photos), size):
            self._count_group(self._counting, photos[start : start + size])

    def close(self) -> None:
        """Stop all threads."""
        if self._counting is not None:
            self._counting.close()

    def _count_group(self, counting: Counting, photos: Sequence[ObjectCreated]) -> None:
        error: ObjectsError | None = None
        for attempt in range(_MAX_ATTEMPTS):
            if attempt:
                time.sleep(self._settings.retry_wait_s * 2 ** (attempt - 1))
            outages = counting.count(photos)
            if not outages:
                return
            photos, error = [outage.item for outage in outages], outages[0].error
            logger.warning("nightly: %s; retried", error)
        if not counting.record_fetch_failed_photos(outages):
            return
        raise ObjectsError(
            f"{error}; {count_noun(len(photos), 'photo is', 'photos are')} left to the next run"
        ) from error
