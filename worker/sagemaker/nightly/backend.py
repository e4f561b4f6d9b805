"""The nightly run in transform jobs, started by beat, and polled until its jobs have ended."""

from __future__ import annotations

import logging
from functools import cached_property

from binwatch.settings import Settings
from worker.brokers.base import TASK_VISIBILITY_S
from worker.counting import Counting
from worker.nightly.backends import OUTAGES
from worker.publisher import Publisher
from worker.sagemaker.nightly.run import Nightly
from worker.sagemaker.nightly.run_store import NightlyRun, RunStore

_WITHIN_S = TASK_VISIBILITY_S / 3
"""Longest time for which one poll reads answers: a task that takes too long is redelivered to another worker."""

logger = logging.getLogger(__name__)


class TransformBackend:
    """SageMaker's batch transform. Photos that it has not counted are sent to the workers."""

    def __init__(self, counting: Counting, publisher: Publisher, settings: Settings) -> None:
        self._counting = counting
        self._publisher = publisher
        self._settings = settings

    def start(self) -> bool:
        """Plan a run and start its jobs, or continue a run that has not ended."""
        run = self._nightly.start()
        return self._advance(run) if run is not None else True

    def poll(self) -> bool:
        """Read the answers of the active run's jobs, if there is one."""
        run = RunStore(self._counting.objects, self._settings).active()
        return self._advance(run) if run is not None else False

    def _advance(self, run: NightlyRun) -> bool:
        nightly, metrics = self._nightly, self._counting.metrics
        try:
            outcome = nightly.advance(run, _WITHIN_S).outcome
        except OUTAGES as error:
            metrics.nightly_failures.inc()
            # The jobs go on and are polled again. They are named, since they cost money.
            logger.error("nightly: run %d (%s): %s", run.number, ", ".join(run.jobs), error)  # noqa: TRY400
            return False
        if outcome is not None:
            metrics.nightly_seconds.inc(outcome.instance_seconds)
        return outcome is not None

    @cached_property
    def _nightly(self) -> Nightly:
        """Created for the first run, so that a missing setting stops the run and not the worker."""
        counting = self._counting
        return Nightly(
            self._settings, counting.objects, counting.database, self._publisher.count, metrics=counting.metrics
        )
