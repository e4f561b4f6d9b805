"""`python -m worker nightly`: start a nightly run, and wait for its end."""

from __future__ import annotations

from binwatch.console import remark
from binwatch.objects import Objects
from binwatch.settings import NightlyBackend, Settings
from binwatch.text import count_noun, pluralize
from worker.counting import open_records
from worker.nightly.selection import Selection, current_version, select_photos
from worker.reconcile import GracePeriod, to_created_objects

_PATIENCE_S = 300.0
"""Give up after this many seconds without a new record."""


def nightly(settings: Settings, backend: NightlyBackend, prefix: str, *, again: bool, dry_run: bool) -> None:
    """Count the photos that the model in use has not counted, and print the progress. Raises BinwatchError.

    With `again`, photos that have a record are counted, too. With `dry_run`, only the plan is printed.
    """
    if dry_run:
        _show_plan(settings, backend, Selection(_version(settings), prefix, again))
    elif backend is NightlyBackend.SAGEMAKER:
        from worker.sagemaker.nightly.commands import count

        count(settings, prefix, again=again)
    elif again:
        _send_all(settings, prefix)
    else:
        _run_on_workers(settings, prefix)


def _run_on_workers(settings: Settings, prefix: str) -> None:
    """Have the workers count all photos without a record of the model in use, and wait for the records."""
    from worker.backfill import backfill_with_progress

    version, grace = _version(settings), GracePeriod(settings.reconcile_grace_s)
    progress = backfill_with_progress(settings, settings.bucket, prefix, _PATIENCE_S, grace, version)
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    now = f"{progress.recorded - progress.failed:,} counted now by {version}{failed}"
    remark(f"{count_noun(progress.listed, 'photo')}: {now}, {progress.recorded_before:,} before")
    _remark_on_young(grace)


def _send_all(settings: Settings, prefix: str) -> None:
    """Send all photos to the workers, including those with a record, and do not wait."""
    from worker.app import open_publisher

    publisher, n_sent = open_publisher(settings), 0
    selection, grace = Selection(_version(settings), prefix, again=True), GracePeriod(settings.reconcile_grace_s)
    for page in select_photos(Objects(settings), open_records(settings), settings, selection, grace):
        publisher.count(to_created_objects(settings.bucket, page))
        n_sent += len(page)
    remark(f"sent {count_noun(n_sent, 'photo')} to the workers")
    _remark_on_young(grace)


def _show_plan(settings: Settings, backend: NightlyBackend, selection: Selection) -> None:
    """Print the number of photos to count and, on SageMaker, the cost."""
    n_photos, estimate = 0, None
    if backend is NightlyBackend.SAGEMAKER:  # the running workers cost the same with or without the run
        from worker.sagemaker.nightly.commands import CostEstimate

        estimate = CostEstimate(settings)
    grace = GracePeriod(settings.reconcile_grace_s)
    for page in select_photos(Objects(settings), open_records(settings), settings, selection, grace):
        n_photos += len(page)
        if estimate is not None:
            estimate.add(page)
    print(f"{count_noun(n_photos, 'photo')} to count by {selection.model}; nothing was started")
    if estimate is not None and n_photos:
        print(estimate.text())
    _remark_on_young(grace)


def _remark_on_young(grace: GracePeriod) -> None:
    """Mention the photos that are still in the grace period, so that the printed numbers add up."""
    if grace.young:
        remark(
            f"{count_noun(grace.young, 'more photo was', 'more photos were')} stored in the last {grace.seconds:g} s"
            f" and {pluralize(grace.young, 'is left to its event', 'are left to their events')}"
            " (BINWATCH_RECONCILE_GRACE_S)"
        )


def _version(settings: Settings) -> str:
    return current_version(Objects(settings), settings)
