"""The backend of nightly runs in transform jobs: beat starts a run, and polls it until its jobs have ended."""

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

_MAX_POLL_S = TASK_VISIBILITY_S / 3
"""Time limit for reading answers in one poll. A task that takes too long is redelivered to another worker."""

logger = logging.getLogger(__name__)


class TransformBackend:
    """Counts photos with SageMaker's batch transform, and sends photos that it has not counted to the workers."""

    def __init__(self, counting: Counting, publisher: Publisher, settings: Settings) -> None:
        self._counting = counting
        self._publisher = publisher
        self._settings = settings

    def start(self) -> bool:
        """Plan a run and start its jobs, or continue the active run. Returns whether it is complete."""
        run = self._nightly.start()
        return self._advance(run) if run is not None else True

    def poll(self) -> bool:
        """Continue the active run, if there is one: read the answers of its jobs. Returns whether the run has ended."""
        run = RunStore(self._counting.objects, self._settings).active()
        return self._advance(run) if run is not None else False

    def _advance(self, run: NightlyRun) -> bool:
        nightly, metrics = self._nightly, self._counting.metrics
        try:
            outcome = nightly.advance(run, _MAX_POLL_S).outcome
        except OUTAGES as error:
            metrics.nightly_failures.inc()
            # The jobs continue, and are polled again. They are named, since they cost money.
            logger.error("nightly: run %d (%s): %s", run.number, ", ".join(run.jobs), error)  # noqa: TRY400
            return False
        if outcome is not None:
            metrics.nightly_seconds.inc(outcome.instance_seconds)
        return outcome is not None

    @cached_property
    def _nightly(self) -> Nightly:
        """The runs. Created on first use, so that a missing setting fails the run and not the start of the worker."""
        counting = self._counting
        return Nightly(
            self._settings, counting.objects, counting.database, self._publisher.count, metrics=counting.metrics
        )
