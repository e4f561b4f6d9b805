"""The scheduler of beat, made robust against a wrong clock and a temporarily unreachable broker.

Beat stores the time of each entry's last start, and starts the entry again one interval later. If the clock was ahead
at that time (a resumed virtual machine, a server without a time source), Celery's own scheduler waits until the real
time has caught up.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import cached_property
from typing import Any

from celery.beat import PersistentScheduler

from binwatch.errors import describe_error
from worker.brokers.internals import recompute_schedule

logger = logging.getLogger(__name__)

SCHEDULER = "worker.beat:Scheduler"
"""Value of Celery's setting `beat_scheduler`."""
_CLOCK_TOLERANCE = timedelta(seconds=5)
"""Maximum time by which a last start may be in the future without being corrected."""


class Scheduler(PersistentScheduler):  # type: ignore[misc]  # Celery has no types
    """Celery's schedule in a file. A last start in the future counts as a start now.

    If a task cannot be sent, one log line names the broker; Celery would log a traceback and the stack.
    """

    @cached_property
    def producer(self) -> Any:
        """The producer that sends tasks. The first access waits until the broker answers."""
        attempts = self.app.conf.broker_connection_max_retries
        return self.Producer(self.connection.ensure_connection(self._log_unreachable, attempts), auto_declare=False)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send a due task. Never raises."""
        logger.info("beat: sending %s (%s)", entry.name, entry.task)
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:  # of any kind: the other tasks must still be sent
            reason = error.__context__  # the error that Celery wraps in a SchedulingError
            logger.error(  # noqa: TRY400 (the traceback only on DEBUG)
                "beat: %s could not be sent to %s (%s); if this lasts, check BINWATCH_BROKER_URL and the broker. It is"
                " sent again when it is next due",
                entry.name,
                self.connection.as_uri(),  # without the password
                describe_error(reason if isinstance(reason, Exception) else error),
                exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
            )

    def _log_unreachable(self, error: Exception, wait_s: float) -> None:
        logger.error(
            "beat: cannot connect to %s (%s); check BINWATCH_BROKER_URL and the broker. Trying again in %g s",
            self.connection.as_uri(),
            describe_error(error),
            wait_s,
        )

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send the due tasks; return the number of seconds until the next call."""
        entries_ahead = [entry for entry in self.schedule.values() if _time_ahead(entry) > _CLOCK_TOLERANCE]
        for entry in entries_ahead:
            logger.warning(
                "beat: the last start of %s is %s in the future: the clock was ahead; it counts as started now",
                entry.name,
                _time_ahead(entry),
            )
            entry.last_run_at = entry.default_now()
        if entries_ahead:
            self.sync()
            recompute_schedule(self)  # the next entry was computed with the wrong clock, too
        wait_s: float = super().tick(*args, **kwargs)
        return wait_s


def _time_ahead(entry: Any) -> timedelta:
    """Return how far in the future the last start of an entry is."""
    make_aware = entry.schedule.maybe_make_aware
    ahead: timedelta = make_aware(entry.last_run_at) - make_aware(entry.default_now())
    return ahead
