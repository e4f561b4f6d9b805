"""The command `python -m worker nightly --backend sagemaker`."""

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
from worker.sagemaker.nightly.recount import LocalCounting
from worker.sagemaker.nightly.run import Nightly
from worker.sagemaker.nightly.run_paths import paths_of
from worker.sagemaker.nightly.run_store import NightlyRun, RunStore


def count(settings: Settings, prefix: str, *, again: bool) -> None:
    """Finish the run that has not ended, if there is one, then start a new run and wait for its end."""
    recount = LocalCounting(settings)
    nightly = Nightly(settings, Objects(settings), open_records(settings), recount)
    active = nightly.runs.active()
    if active is not None:
        remark(f"run {active.number} of {active.started:%Y-%m-%d %H:%M} has not ended: continuing it")
        _finish(nightly, active, settings.nightly_poll_s)
    run = nightly.start(prefix, again=again)
    if run is None:
        remark(
            "nothing to count: the model in use has a record of every photo; those stored in the last"
            f" {settings.reconcile_grace_s:g} s are left to their events"
        )
    else:
        _finish(nightly, run, settings.nightly_poll_s)
    recount.close()


class CostEstimate:
    """An estimate of a run's cost, from the photos that it would count."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._paths = paths_of(settings, "00000000-00000000")  # of the same length as a real token
        self._sagemaker_photos = self._local_photos = 0

    def add(self, photos: Sequence[ListedObject]) -> None:
        """Add photos to be counted."""
        suitable = sum(can_be_sent(photo, self._settings, self._paths) for photo in photos)
        self._sagemaker_photos += suitable
        self._local_photos += len(photos) - suitable

    def text(self) -> str:
        """Return photos, duration and cost as text. The speed of the last run is read from the bucket."""
        last = RunStore(Objects(self._settings), self._settings).latest()
        rate = cost.photos_per_second(self._settings, last)
        return cost.estimate_text(self._settings, self._sagemaker_photos, self._local_photos, rate)


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
        _print_running_jobs(nightly, run)
        raise
    remark(f"run {run.number}: {nightly.summary(run)}")


def _print_running_jobs(nightly: Nightly, run: NightlyRun) -> None:
    """Print the jobs that still run and cost money after this command has ended."""
    try:
        names = nightly.running_jobs(run)
    except Exception:  # the original error matters more, and may have the same cause
        names = run.jobs
    for name in names:
        print(
            f"transform job {name} may still run and cost money: repeat this command to continue it; to stop it:"
            f" aws sagemaker stop-transform-job --transform-job-name {name}",
            file=sys.stderr,
        )
