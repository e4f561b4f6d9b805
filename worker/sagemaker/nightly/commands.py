"""`python -m worker nightly --backend sagemaker`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from binwatch.console import remark
from binwatch.objects import ListedObject, Objects
from binwatch.settings import Settings
from worker.counting import open_records
from worker.sagemaker.nightly import cost
from worker.sagemaker.nightly.plan import can_be_sent
from worker.sagemaker.nightly.recount import InProcess
from worker.sagemaker.nightly.run import Nightly
from worker.sagemaker.nightly.run_paths import paths_of
from worker.sagemaker.nightly.run_store import NightlyRun, RunStore


def count(settings: Settings, prefix: str, *, again: bool) -> None:
    """Start a run, or continue one that has not ended, and wait for its end."""
    recount = InProcess(settings)
    nightly = Nightly(settings, Objects(settings), open_records(settings), recount)
    waiting = nightly.runs.active()
    if waiting is not None:
        remark(f"run {waiting.number} of {waiting.started:%Y-%m-%d %H:%M} has not ended: continuing it")
        _finish(nightly, waiting, settings.nightly_poll_s)
    run = nightly.start(prefix, again=again)
    if run is None:
        young = f"stored in the last {settings.reconcile_grace_s:g} s are left to their events"
        remark(f"nothing to count: the model in use has a record of every photo; those {young}")
    else:
        _finish(nightly, run, settings.nightly_poll_s)
    recount.close()


class CostEstimate:
    """Estimate of a run's cost."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._paths = paths_of(settings, "00000000-00000000")  # of the same length as a real token
        self._sent = self._kept = 0

    def add(self, photos: Sequence[ListedObject]) -> None:
        """Add photos to be counted."""
        sent = sum(can_be_sent(photo, self._settings, self._paths) for photo in photos)
        self._sent += sent
        self._kept += len(photos) - sent

    def in_words(self) -> str:
        """Photos, duration and cost in words, by the speed of the last run. Reads the bucket."""
        last = RunStore(Objects(self._settings), self._settings).latest()
        rate = cost.photos_per_second(self._settings, last)
        return cost.estimate(self._settings, sent=self._sent, kept=self._kept, rate=rate)


def _finish(nightly: Nightly, run: NightlyRun, poll_s: float) -> None:
    remark(f"run {run.number}: {nightly.estimate(run)}")
    try:
        run = nightly.advance(run)
        if run.ended is None:
            remark(f"waiting for {', '.join(run.jobs)}, polled every {poll_s:g} s")
        while run.ended is None:
            time.sleep(poll_s)
            run = nightly.advance(run)
    except BaseException:
        _name_what_runs(nightly, run)
        raise
    remark(f"run {run.number}: {nightly.summary(run)}")


def _name_what_runs(nightly: Nightly, run: NightlyRun) -> None:
    """Print the jobs that go on and cost money although this command ends."""
    try:
        names = nightly.running(run)
    except Exception:  # the error being raised matters more, and may have the same cause
        names = run.jobs
    for name in names:
        print(
            f"transform job {name} may still run and cost money: repeat this command to continue it; to stop it:"
            f" aws sagemaker stop-transform-job --transform-job-name {name}",
            file=sys.stderr,
        )
