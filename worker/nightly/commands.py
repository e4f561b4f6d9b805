"""`python -m worker nightly`: the same run as beat's, but waited for."""

from __future__ import annotations

import sys
import time

from binwatch.console import remark
from binwatch.objects import Objects
from binwatch.settings import NightlyBackend, Settings
from binwatch.text import many, noun
from worker.counting import open_records
from worker.nightly import cost
from worker.nightly.folder import folder_of
from worker.nightly.ledger import Ledger, Run
from worker.nightly.local import InProcess
from worker.nightly.model import current_version
from worker.nightly.plan import Scope, can_be_sent, photos
from worker.nightly.run import Nightly
from worker.reconcile import Grace, as_created

_PATIENCE_S = 300.0


def nightly(settings: Settings, backend: NightlyBackend, prefix: str, *, again: bool, dry_run: bool) -> None:
    """Count what the model in use has not counted, and print what is done. Raises BinwatchError if it cannot be."""
    if dry_run:
        _show_plan(settings, backend, Scope(_version(settings), prefix, again))
    elif backend is NightlyBackend.SAGEMAKER:
        _on_sagemaker(settings, prefix, again)
    elif again:
        _send_all(settings, prefix)
    else:
        _by_workers(settings, prefix)


def _by_workers(settings: Settings, prefix: str) -> None:
    from worker.backfill import backfill_with_progress

    version, grace = _version(settings), Grace(settings.reconcile_grace_s)
    progress = backfill_with_progress(settings, settings.bucket, prefix, _PATIENCE_S, grace, version)
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    now = f"{progress.since - progress.failed:,} counted now by {version}{failed}"
    remark(f"{many(progress.seen, 'photo')}: {now}, {progress.before:,} before")
    _show_young(grace)


def _send_all(settings: Settings, prefix: str) -> None:
    from worker.app import open_publisher

    sender, sent = open_publisher(settings), 0
    scope, grace = Scope(_version(settings), prefix, again=True), Grace(settings.reconcile_grace_s)
    for page in photos(Objects(settings), open_records(settings), settings, scope, grace):
        sender.count(as_created(settings.bucket, page))
        sent += len(page)
    remark(f"sent {many(sent, 'photo')} to the workers")
    _show_young(grace)


def _on_sagemaker(settings: Settings, prefix: str, again: bool) -> None:
    recount = InProcess(settings)
    nightly = Nightly(settings, Objects(settings), open_records(settings), recount)
    waiting = nightly.ledger.active()
    if waiting is not None:
        remark(f"run {waiting.number} of {waiting.started:%Y-%m-%d %H:%M} has not ended: going on with it")
        _finish(nightly, waiting, settings.nightly_poll_s)
    run = nightly.start(prefix, again=again)
    if run is None:
        young = f"stored in the last {settings.reconcile_grace_s:g} s are left to their events"
        remark(f"nothing to count: the model in use has a record of every photo; those {young}")
    else:
        _finish(nightly, run, settings.nightly_poll_s)
    recount.close()


def _finish(nightly: Nightly, run: Run, poll_s: float) -> None:
    remark(f"run {run.number}: {nightly.estimate(run)}")
    try:
        run = nightly.advance(run)
        if run.ended is None:
            remark(f"waiting for {', '.join(run.jobs)}, looked at every {poll_s:g} s")
        while run.ended is None:
            time.sleep(poll_s)
            run = nightly.advance(run)
    except BaseException:
        _name_what_runs(nightly, run)
        raise
    remark(f"run {run.number}: {nightly.summary(run)}")


def _name_what_runs(nightly: Nightly, run: Run) -> None:
    """Say what goes on costing money although this command ends."""
    try:
        names = nightly.running(run)
    except Exception:  # what is being raised matters more, and may be the reason
        names = run.jobs
    for name in names:
        print(
            f"transform job {name} may still run and cost money: this command again goes on with it; to end it:"
            f" aws sagemaker stop-transform-job --transform-job-name {name}",
            file=sys.stderr,
        )


def _show_plan(settings: Settings, backend: NightlyBackend, scope: Scope) -> None:
    objects = Objects(settings)
    folder = folder_of(settings, "00000000-00000000")  # as long as that of a run will be
    found = sent = 0
    grace = Grace(settings.reconcile_grace_s)
    for page in photos(objects, open_records(settings), settings, scope, grace):
        found += len(page)
        sent += sum(can_be_sent(photo, settings, folder) for photo in page)
    print(f"{many(found, 'photo')} to count by {scope.model}; nothing was started")
    if backend is NightlyBackend.SAGEMAKER and found:
        rate = cost.photos_per_second(settings, Ledger(objects, settings).latest())
        print(cost.estimate(settings, sent=sent, kept=found - sent, rate=rate))
    _show_young(grace)


def _show_young(grace: Grace) -> None:
    """No photo may be missing from what a person is told."""
    if grace.young:
        remark(
            f"{many(grace.young, 'more photo was', 'more photos were')} stored in the last {grace.seconds:g} s and"
            f" {noun(grace.young, 'is left to its event', 'are left to their events')} (BINWATCH_RECONCILE_GRACE_S)"
        )


def _version(settings: Settings) -> str:
    return current_version(Objects(settings), settings)
