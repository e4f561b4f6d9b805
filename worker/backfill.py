"""Counts the objects that are already in a bucket: sends tasks a little ahead of the workers, and polls the records."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Display
from sqlalchemy import Engine as Database

from binwatch.bin_naming import BinNaming
from binwatch.console import progress_console
from binwatch.errors import BinwatchError
from binwatch.events import ObjectCreated
from binwatch.objects import Objects
from binwatch.records.queries import recorded_keys
from binwatch.settings import Settings
from binwatch.text import count_noun
from worker.app import open_publisher
from worker.counting import open_records
from worker.publisher import Publisher
from worker.reconcile import Grace, unrecorded
from worker.skipped import SkippedTally

_AHEAD = 2000
"""Most objects that are sent but not yet recorded, so that new photos never wait behind a whole bucket."""
_POLL_S = 0.5


@dataclass(slots=True)
class BackfillProgress:
    """Numbers of photos and metadata files: seen in the listing, recorded before, and recorded since."""

    seen: int = 0
    before: int = 0
    since: int = 0
    failed: int = 0
    """Objects among `since` that could not be counted or read."""
    skipped: SkippedTally = field(default_factory=SkippedTally, compare=False)

    def add(self, done: Mapping[str, bool]) -> None:
        """Add newly recorded objects: key → whether it was counted or read."""
        self.since += len(done)
        self.failed += sum(not succeeded for succeeded in done.values())

    def but_failed(self) -> str:
        """Words that follow the number of recorded objects; empty if none failed."""
        return f", of which {self.failed:,} failed" if self.failed else ""


def backfill(
    objects: Objects,
    database: Database,
    settings: Settings,
    publisher: Publisher,
    *,
    bucket: str,
    prefix: str,
    patience_s: float,
    show: Callable[[BackfillProgress], object],
    grace: Grace | None = None,
    model: str | None = None,
) -> BackfillProgress:
    """Send all objects without a record, and wait until each has one. Started again, it continues where it stopped.

    With `model`: only photos that this version has no record of, and no metadata files.
    Raises BinwatchError if nothing is recorded for `patience_s` seconds.
    """
    progress = BackfillProgress()
    waiting = _Unrecorded(database, bucket, patience_s, model, settings.bin_naming)
    for page in unrecorded(objects, database, settings, bucket=bucket, prefix=prefix, grace=grace, model=model):
        progress.seen += page.listed
        progress.skipped.add(page.skipped)
        progress.before += page.listed - len(page.photos) - len(page.metadata)
        publisher.count(page.photos)
        publisher.read_metadata(page.metadata)
        waiting.add(page.photos, page.metadata)
        while waiting.left > _AHEAD:
            progress.add(waiting.poll())
            show(progress)
    while waiting.left:
        progress.add(waiting.poll())
        show(progress)
    show(progress)  # also if nothing was to be sent
    return progress


class _Unrecorded:
    """Objects that were sent and have no record yet."""

    def __init__(
        self, database: Database, bucket: str, patience_s: float, model: str | None, naming: BinNaming
    ) -> None:
        self._database = database
        self._model = model
        self._naming = naming
        self._bucket = bucket
        self._patience_s = patience_s
        self._keys: dict[str, ObjectCreated] = {}
        self._last_change = time.monotonic()

    @property
    def left(self) -> int:
        return len(self._keys)

    def add(self, *objects: list[ObjectCreated]) -> None:
        self._keys |= {item.key: item for group in objects for item in group}
        self._last_change = time.monotonic()

    def poll(self) -> dict[str, bool]:
        """Objects recorded since the last call: key → whether it was counted or read. Waits a little if none was."""
        with self._database.connect() as connection:
            done = recorded_keys(connection, self._bucket, self._keys.values(), self._model, self._naming)
        for key in done:
            del self._keys[key]
        if done:
            self._last_change = time.monotonic()
        elif time.monotonic() - self._last_change > self._patience_s:
            raise BinwatchError(
                f"nothing was recorded for {self._patience_s:.0f} s, and"
                f" {count_noun(self.left, 'object has', 'objects have')} no record, such as"
                f" {next(iter(self._keys))!r}: is a worker running? Start one, and repeat this command"
            )
        else:
            time.sleep(_POLL_S)
        return done


def backfill_with_progress(
    settings: Settings,
    bucket: str,
    prefix: str,
    patience_s: float,
    grace: Grace | None = None,
    model: str | None = None,
) -> BackfillProgress:
    """`backfill` with a progress bar, on the bucket, records and queue of the settings."""
    columns = (TextColumn("recorded"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    started = time.monotonic()
    with Display(*columns, TimeElapsedColumn(), console=progress_console()) as display:
        bar = display.add_task("recorded", total=None, rate="")

        def show(progress: BackfillProgress) -> None:
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
