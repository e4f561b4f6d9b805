"""What a person starts by hand beside running workers, with everything opened as the settings say."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Display

from binwatch.console import progress_console
from binwatch.keys import Skipped
from binwatch.objects import Objects
from binwatch.settings import Settings
from worker.app import open_publisher
from worker.backfill import Progress, backfill
from worker.counting import open_records
from worker.reconcile import Grace, Sent, send_unrecorded, skipped_keys


def reconcile_once(settings: Settings, *, refused: bool) -> Sent:
    """Send what has no record; with `refused`, also what could not be fetched, whenever that was tried last."""
    return send_unrecorded(
        Objects(settings), open_records(settings), settings, open_publisher(settings), refused=refused
    )


def list_skipped(settings: Settings, prefix: str) -> Iterator[tuple[Skipped, str]]:
    """Why objects of the bucket are not looked at, and their keys, in the order of the keys."""
    return (found for one in Objects(settings).list(settings.bucket, prefix) for found in skipped_keys([one], settings))


def backfill_with_progress(
    settings: Settings,
    bucket: str,
    prefix: str,
    patience_s: float,
    grace: Grace | None = None,
    model: str | None = None,
) -> Progress:
    """`worker.backfill.backfill` with a progress bar."""
    columns = (TextColumn("recorded"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    started = time.monotonic()
    with Display(*columns, TimeElapsedColumn(), console=progress_console()) as display:
        bar = display.add_task("recorded", total=None, rate="")

        def show(progress: Progress) -> None:
            rate = f"{progress.since / (time.monotonic() - started):.1f}/s"
            display.update(bar, total=progress.seen, completed=progress.before + progress.since, rate=rate)

        return backfill(
            Objects(settings),
            open_records(settings),
            settings,
            open_publisher(settings),
            bucket=bucket,
            prefix=prefix,
            patience_s=patience_s,
            show=show,
            grace=grace,
            model=model,
        )
