"""The nightly run as Celery tasks: beat starts it, and often looks at what it waits for. No worker waits."""

from __future__ import annotations

import logging
from functools import cached_property

from celery import Task
from celery.schedules import ParseException, crontab
from sqlalchemy.exc import SQLAlchemyError

from binwatch.errors import BinwatchError, SettingsError
from binwatch.settings import NightlyBackend, Settings
from binwatch.text import many
from worker.brokers.base import TASK_VISIBILITY_S
from worker.counting import Counting
from worker.nightly.ledger import Ledger, Run
from worker.nightly.model import current_version
from worker.nightly.run import Nightly
from worker.publisher import Publisher
from worker.reconcile import send_unrecorded

NIGHTLY = "binwatch.nightly"
NIGHTLY_POLL = "binwatch.nightly_poll"
_WITHIN_S = TASK_VISIBILITY_S / 3
"""For how long one look may read answers: a task that takes too long would be given to another worker, too."""
EXPIRES_S = 12 * 3600
"""A run that no worker could start for so long is left to the next night."""
_RETRY_S = 60
_RETRIES = 60
"""For an hour: an outage at the very moment must not cost the night."""
_OUTAGES = (BinwatchError, SQLAlchemyError)
"""What a run ends with that may go on later: of S3, of AWS, or of the records."""

logger = logging.getLogger(__name__)


def nightly_crontab(settings: Settings) -> crontab:
    """When the run starts. Raises SettingsError."""
    try:
        return crontab.from_string(settings.nightly_at or "")
    except (ParseException, ValueError) as error:
        raise SettingsError(f"BINWATCH_NIGHTLY_AT: {settings.nightly_at!r} is no crontab ({error})") from error


class _NightlyTask(Task):  # type: ignore[misc]  # Celery has no types
    ignore_result = True
    may_expire = True

    def __init__(self, counting: Counting, sender: Publisher, settings: Settings) -> None:
        self._counting = counting
        self._sender = sender
        self._settings = settings

    def _advance(self, nightly: Nightly, run: Run) -> None:
        metrics = self._counting.metrics
        try:
            outcome = nightly.advance(run, _WITHIN_S).outcome
            if outcome is not None:
                metrics.nightly_seconds.inc(outcome.instance_seconds)
        except _OUTAGES as error:
            metrics.nightly_failures.inc()
            # What was started goes on and is looked at again; but who reads this must know what costs money.
            logger.error("nightly: run %d (%s): %s", run.number, ", ".join(run.jobs), error)  # noqa: TRY400

    @cached_property
    def _nightly(self) -> Nightly:
        """Made once it is needed: with local workers only, there are no settings for it."""
        counting = self._counting
        return Nightly(
            self._settings, counting.objects, counting.database, self._sender.count, metrics=counting.metrics
        )


class StartNightly(_NightlyTask):
    """Starts the run of this night, or goes on with one that has not ended."""

    name = NIGHTLY
    max_retries = _RETRIES

    def run(self) -> None:
        """Celery's entry point."""
        try:
            if self._settings.nightly_backend is NightlyBackend.LOCAL:
                self._send()
                return
            nightly = self._nightly
            run = nightly.start()
        except _OUTAGES as error:
            self._counting.metrics.nightly_failures.inc()
            raise self.retry(exc=error, countdown=_RETRY_S) from error
        if run is not None:
            self._advance(nightly, run)

    def _send(self) -> None:
        version = current_version(self._counting.objects, self._settings)
        sent = send_unrecorded(
            self._counting.objects, self._counting.database, self._settings, self._sender, model=version
        )
        logger.info("nightly: sent %s that %s has no record of", many(sent.objects, "photo"), version)


class PollNightly(_NightlyTask):
    """Takes a run further that waits for its jobs, if there is one."""

    name = NIGHTLY_POLL

    def run(self) -> None:
        """Celery's entry point."""
        try:
            run = Ledger(self._counting.objects, self._settings).active()
            if run is not None:
                self._advance(self._nightly, run)
        except _OUTAGES as error:
            self._counting.metrics.nightly_failures.inc()
            logger.warning("nightly: %s; looked at again in %g s", error, self._settings.nightly_poll_s)
