"""`python -m worker nightly`: a nightly run that is waited for."""

from __future__ import annotations

from binwatch.console import remark
from binwatch.objects import Objects
from binwatch.settings import NightlyBackend, Settings
from binwatch.text import many, noun
from worker.counting import open_records
from worker.nightly.selection import Selection, current_version, photos
from worker.reconcile import Grace, as_created

_PATIENCE_S = 300.0


def nightly(settings: Settings, backend: NightlyBackend, prefix: str, *, again: bool, dry_run: bool) -> None:
    """Count the photos that the model in use has not counted, and print the progress. Raises BinwatchError."""
    if dry_run:
        _show_plan(settings, backend, Selection(_version(settings), prefix, again))
    elif backend is NightlyBackend.SAGEMAKER:
        from worker.sagemaker.nightly.commands import count

        count(settings, prefix, again=again)
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
    selection, grace = Selection(_version(settings), prefix, again=True), Grace(settings.reconcile_grace_s)
    for page in photos(Objects(settings), open_records(settings), settings, selection, grace):
        sender.count(as_created(settings.bucket, page))
        sent += len(page)
    remark(f"sent {many(sent, 'photo')} to the workers")
    _show_young(grace)


def _show_plan(settings: Settings, backend: NightlyBackend, selection: Selection) -> None:
    found, estimate = 0, None
    if backend is NightlyBackend.SAGEMAKER:  # the running workers cost the same without the run
        from worker.sagemaker.nightly.commands import CostEstimate

        estimate = CostEstimate(settings)
    grace = Grace(settings.reconcile_grace_s)
    for page in photos(Objects(settings), open_records(settings), settings, selection, grace):
        found += len(page)
        if estimate is not None:
            estimate.add(page)
    print(f"{many(found, 'photo')} to count by {selection.model}; nothing was started")
    if estimate is not None and found:
        print(estimate.text())
    _show_young(grace)


def _show_young(grace: Grace) -> None:
    """Mention the photos that are too young to be counted, so that the printed numbers add up."""
    if grace.young:
        remark(
            f"{many(grace.young, 'more photo was', 'more photos were')} stored in the last {grace.seconds:g} s and"
            f" {noun(grace.young, 'is left to its event', 'are left to their events')} (BINWATCH_RECONCILE_GRACE_S)"
        )


def _version(settings: Settings) -> str:
    return current_version(Objects(settings), settings)
