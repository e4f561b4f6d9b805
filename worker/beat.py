"""Beat's schedule, which a clock that was wrong for a while cannot stop.

Beat keeps when it last started what, and starts it again an interval later. If the clock was ahead at that moment (a
virtual machine that was resumed, a server without a time source), that is a moment to come, and beat would wait for it.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from celery.beat import PersistentScheduler

from worker.brokers.internals import recompute_schedule

logger = logging.getLogger(__name__)

SCHEDULER = "worker.beat:Scheduler"
"""What Celery's setting `beat_scheduler` names."""
_TOLERANCE = timedelta(seconds=5)
"""A clock that is adjusted by less has no effect worth a word."""


class Scheduler(PersistentScheduler):  # type: ignore[misc]  # Celery has no types
    """Celery's own schedule in a file; what was last started in the future counts as started now."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Start what is due; returns after how many seconds to look again."""
        ahead = [entry for entry in self.schedule.values() if _ahead(entry) > _TOLERANCE]
        for entry in ahead:
            logger.warning(
                "beat: %s was last started %s from now: the clock was ahead; taken for started now",
                entry.name,
                _ahead(entry),
            )
            entry.last_run_at = entry.default_now()
        if ahead:
            self.sync()
            recompute_schedule(self)  # what is next was computed by the wrong clock, too
        wait_s: float = super().tick(*args, **kwargs)
        return wait_s


def _ahead(entry: Any) -> timedelta:
    """How far in the future an entry was last started."""
    aware = entry.schedule.maybe_make_aware
    difference: timedelta = aware(entry.last_run_at) - aware(entry.default_now())
    return difference
