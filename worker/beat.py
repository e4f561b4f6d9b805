"""Beat's schedule, which a clock that was wrong for a while cannot stop, and a broker that is away only delays.

Beat keeps when it last started what, and starts it again an interval later. If the clock was ahead at that moment (a
virtual machine that was resumed, a server without a time source), that is a moment to come, and beat would wait for it.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import cached_property
from typing import Any

from celery.beat import PersistentScheduler

from binwatch.errors import described
from worker.brokers.internals import recompute_schedule

logger = logging.getLogger(__name__)

SCHEDULER = "worker.beat:Scheduler"
"""What Celery's setting `beat_scheduler` names."""
_TOLERANCE = timedelta(seconds=5)
"""A clock that is adjusted by less has no effect worth a word."""


class Scheduler(PersistentScheduler):  # type: ignore[misc]  # Celery has no types
    """Celery's own schedule in a file; what was last started in the future counts as started now.

    What cannot be sent costs a line that names the broker, where Celery writes the traceback and the stack each time.
    """

    @cached_property
    def producer(self) -> Any:
        """What tasks are sent with. Waits for the broker."""
        attempts = self.app.conf.broker_connection_max_retries
        return self.Producer(self.connection.ensure_connection(self._log_unreachable, attempts), auto_declare=False)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send a task that is due."""
        logger.info("beat: sending %s (%s)", entry.name, entry.task)
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:  # of any kind: the schedule must go on
            about = error.__context__  # the error that Celery's SchedulingError reports
            logger.error(  # noqa: TRY400 (the traceback only on DEBUG)
                "beat: %s could not be sent to %s (%s); if this lasts, check BINWATCH_BROKER_URL and the broker. It is"
                " sent again when it is next due",
                entry.name,
                self.connection.as_uri(),  # without the password
                described(about if isinstance(about, Exception) else error),
                exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
            )

    def _log_unreachable(self, error: Exception, wait_s: float) -> None:
        logger.error(
            "beat: cannot connect to %s (%s); check BINWATCH_BROKER_URL and the broker. Trying again in %g s",
            self.connection.as_uri(),
            described(error),
            wait_s,
        )

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
