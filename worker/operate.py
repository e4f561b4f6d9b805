"""What a person starts by hand beside running workers, with everything opened as the settings say."""

from __future__ import annotations

import time

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Display

from binwatch.objects import Objects
from binwatch.settings import Settings
from worker.app import make_app, make_sender
from worker.backfill import Progress, backfill
from worker.counting import open_records
from worker.reconcile import Grace, send_unrecorded


def reconcile_once(settings: Settings) -> int:
    """Send what has no record; returns how many objects that is."""
    sender = make_sender(make_app(settings), settings)
    return send_unrecorded(Objects(settings), open_records(settings), settings, sender)


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
    with Display(*columns, TimeElapsedColumn()) as display:
        bar = display.add_task("recorded", total=None, rate="")

        def show(progress: Progress) -> None:
            rate = f"{progress.since / (time.monotonic() - started):.1f}/s"
            display.update(bar, total=progress.seen, completed=progress.before + progress.since, rate=rate)

        return backfill(
            Objects(settings),
            open_records(settings),
            settings,
            make_sender(make_app(settings), settings),
            bucket=bucket,
            prefix=prefix,
            patience_s=patience_s,
            show=show,
            grace=grace,
            model=model,
        )
