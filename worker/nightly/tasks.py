"""The nightly run as Celery tasks: beat starts it, and polls it while its jobs run. No worker waits."""

from __future__ import annotations

import logging

from celery import Task
from celery.schedules import ParseException, crontab

from binwatch.errors import SettingsError
from binwatch.settings import Settings
from worker.counting import Counting
from worker.metrics import PeriodicStep
from worker.nightly.backends import OUTAGES, choose_backend
from worker.publisher import Publisher

NIGHTLY = "binwatch.nightly"
NIGHTLY_POLL = "binwatch.nightly_poll"
EXPIRES_S = 12 * 3600
"""A run that no worker has started within this time is left to the next night."""
_RETRY_INTERVAL_S = 60
_MAX_RETRIES = 60
"""Retries for an hour: a short outage must not prevent the run of the night."""

logger = logging.getLogger(__name__)


def nightly_crontab(settings: Settings) -> crontab:
    """Return the schedule of nightly runs. Raises SettingsError."""
    try:
        return crontab.from_string(settings.nightly_at or "")
    except (ParseException, ValueError) as error:
        raise SettingsError(f"BINWATCH_NIGHTLY_AT: {settings.nightly_at!r} is not a crontab ({error})") from error


class _NightlyTask(Task):  # type: ignore[misc]  # Celery has no types
    ignore_result = True
    may_expire = True

    def __init__(self, counting: Counting, publisher: Publisher, settings: Settings) -> None:
        self._backend = choose_backend(counting, publisher, settings)
        self._metrics = counting.metrics
        self._poll_s = settings.nightly_poll_s


class StartNightly(_NightlyTask):
    """Starts the run of this night, or continues an unfinished one."""

    name = NIGHTLY
    max_retries = _MAX_RETRIES

    def run(self) -> None:
        """Celery's entry point."""
        self._metrics.note_periodic_step(self.name, PeriodicStep.START)
        try:
            is_finished = self._backend.start()
        except OUTAGES as error:
            self._metrics.nightly_failures.inc()
            raise self.retry(exc=error, countdown=_RETRY_INTERVAL_S) from error
        if is_finished:
            self._metrics.note_periodic_step(self.name, PeriodicStep.SUCCESS)


class PollNightly(_NightlyTask):
    """Continues a run that is waiting for its jobs, if there is one."""

    name = NIGHTLY_POLL

    def run(self) -> None:
        """Celery's entry point."""
        try:
            is_finished = self._backend.poll()
        except OUTAGES as error:
            self._metrics.nightly_failures.inc()
            logger.warning("nightly: %s; checked again in %g s", error, self._poll_s)
            return
        if is_finished:
            self._metrics.note_periodic_step(NIGHTLY, PeriodicStep.SUCCESS)
