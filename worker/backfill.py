"""Process the objects that are already in a bucket: send tasks a little ahead of the workers, and poll the records."""

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
from worker.reconcile import GracePeriod, unrecorded_pages
from worker.skipped import SkippedTally

_MAX_PENDING = 2000
"""Above this number of objects sent but not yet recorded, no further page is sent, so that new photos never wait behind
a whole bucket."""
_POLL_INTERVAL_S = 0.5


@dataclass(slots=True)
class BackfillProgress:
    """Numbers of photos and metadata files: listed in the bucket, recorded before the backfill, and recorded by it."""

    listed: int = 0
    recorded_before: int = 0
    recorded: int = 0
    failed: int = 0
    """Number of `recorded` objects that could not be counted or read."""
    skipped: SkippedTally = field(default_factory=SkippedTally, compare=False)

    def add(self, recorded: Mapping[str, bool]) -> None:
        """Add newly recorded objects: key → whether the object was counted or read."""
        self.recorded += len(recorded)
        self.failed += sum(not succeeded for succeeded in recorded.values())

    def failed_suffix(self) -> str:
        """Text to append to the number of recorded objects; empty if none failed."""
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
    grace: GracePeriod | None = None,
    model: str | None = None,
) -> BackfillProgress:
    """Send all objects without a record, and wait until each has one. A repeated backfill continues where it stopped.

    With `model`: only photos without a record of this model version, and no metadata files.
    Raises BinwatchError if nothing is recorded for `patience_s` seconds.
    """
    progress = BackfillProgress()
    pending = _PendingObjects(database, bucket, patience_s, model, settings.bin_naming)
    for page in unrecorded_pages(objects, database, settings, bucket=bucket, prefix=prefix, grace=grace, model=model):
        progress.listed += page.listed
        progress.skipped.add(page.skipped)
        progress.recorded_before += page.listed - len(page.photos) - len(page.metadata)
        publisher.count(page.photos)
        publisher.read_metadata(page.metadata)
        pending.add(page.photos, page.metadata)
        while len(pending) > _MAX_PENDING:
            progress.add(pending.poll())
            show(progress)
    while len(pending):
        progress.add(pending.poll())
        show(progress)
    show(progress)  # even if there was nothing to send
    return progress


class _PendingObjects:
    """Objects that were sent and have no record yet."""

    def __init__(
        self, database: Database, bucket: str, patience_s: float, model: str | None, naming: BinNaming
    ) -> None:
        self._database = database
        self._model = model
        self._naming = naming
        self._bucket = bucket
        self._patience_s = patience_s
        self._objects: dict[str, ObjectCreated] = {}
        self._last_change = time.monotonic()

    def __len__(self) -> int:
        return len(self._objects)

    def add(self, *objects: list[ObjectCreated]) -> None:
        self._objects |= {item.key: item for group in objects for item in group}
        self._last_change = time.monotonic()

    def poll(self) -> dict[str, bool]:
        """Return the objects recorded since the last call: key → whether it was counted or read.

        Waits briefly if there are none. Raises BinwatchError if nothing was recorded for `patience_s` seconds.
        """
        with self._database.connect() as connection:
            recorded = recorded_keys(connection, self._bucket, self._objects.values(), self._model, self._naming)
        for key in recorded:
            del self._objects[key]
        if recorded:
            self._last_change = time.monotonic()
        elif time.monotonic() - self._last_change > self._patience_s:
            raise BinwatchError(
                f"nothing was recorded for {self._patience_s:.0f} s, and"
                f" {count_noun(len(self), 'object has', 'objects have')} no record, such as"
                f" {next(iter(self._objects))!r}: is a worker running? Start one, and repeat this command"
            )
        else:
            time.sleep(_POLL_INTERVAL_S)
        return recorded


def backfill_with_progress(
    settings: Settings,
    bucket: str,
    prefix: str,
    patience_s: float,
    grace: GracePeriod | None = None,
    model: str | None = None,
) -> BackfillProgress:
    """Run `backfill` on the records and queue of the settings, with a progress bar."""
    columns = (TextColumn("recorded"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    started = time.monotonic()
    with Display(*columns, TimeElapsedColumn(), console=progress_console()) as display:
        bar = display.add_task("recorded", total=None, rate="")

        def show(progress: BackfillProgress) -> None:
            rate = f"{progress.recorded / (time.monotonic() - started):.1f}/s"
            completed = progress.recorded_before + progress.recorded
            display.update(bar, total=progress.listed, completed=completed, rate=rate)

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
