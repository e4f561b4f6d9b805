"""Reads and records the answers of a run's jobs in chunks, and has photos without an answer counted locally."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import Engine as Database

from binwatch.errors import BinwatchError
from binwatch.objects import ListedObject, ObjectRefused, Objects
from binwatch.records.store import NewCount, Store
from binwatch.settings import Settings
from worker.metrics import WorkerMetrics
from worker.reconcile import to_created_objects
from worker.sagemaker.nightly.model import card_of
from worker.sagemaker.nightly.plan import read_plan
from worker.sagemaker.nightly.recount import Recount
from worker.sagemaker.nightly.results import Results
from worker.sagemaker.nightly.run_paths import RunPaths, paths_of
from worker.sagemaker.nightly.run_store import NightlyRun, RunPart, RunStore

_CHUNK_PHOTOS = 256
"""Number of answers that are read and recorded in one transaction."""
_MAX_PROGRESS_BYTES = 1000


class RunEnded(BinwatchError):
    """Another process has ended the run and removed its answers."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of reading a part, in numbers of photos."""

    position: int = 0
    """Photos processed."""
    recorded: int = 0
    local: int = 0
    """Photos sent to local workers."""
    failed: int = 0
    """Recorded photos that could not be counted."""

    def after(self, counts: Sequence[NewCount], local: int) -> Progress:
        """Return the progress after recording `counts` and sending `local` more photos to local workers."""
        failed = sum(count.reason is not None for count in counts)
        return Progress(
            position=self.position + len(counts) + local,
            recorded=self.recorded + len(counts),
            local=self.local + local,
            failed=self.failed + failed,
        )


class Ingest:
    """Reads the parts of runs. Idempotent, even if two processes read the same part."""

    def __init__(
        self, settings: Settings, objects: Objects, database: Database, recount: Recount, metrics: WorkerMetrics
    ) -> None:
        self._settings = settings
        self._objects = objects
        self._runs = RunStore(objects, settings)
        self._store = Store(database, settings.bin_naming, settings.slicing)
        self._recount = recount
        self._metrics = metrics

    def record_model(self, run: NightlyRun) -> None:
        """Record the run's model before its first photo, so that the model's metrics start at 0."""
        self._store.use_model(run.model, card_of(self._objects, self._settings, run.model).calibration)

    def read(self, run: NightlyRun, part: RunPart, until: float) -> bool:
        """Read chunks of a part until time.monotonic() reaches `until`, but at least one.

        Returns whether the part is done. Raises RunEnded or ObjectRefused if another process has ended the run.
        """
        paths = paths_of(self._settings, run)
        progress = self.progress(paths, part)
        if progress.position == part.photos:
            return True
        self.record_model(run)
        photos = read_plan(self._objects, paths, part)
        results = Results(self._objects, paths, part.number, run.model)
        if part.job is not None:
            results.check_keys(photos)
        with ThreadPoolExecutor(self._settings.fetch_threads, thread_name_prefix="answers") as pool:
            while progress.position < part.photos:
                chunk = photos[progress.position : progress.position + _CHUNK_PHOTOS]
                counts: list[NewCount | None] = [None] * len(chunk)
                if part.job is not None:
                    counts = list(pool.map(results.read_count, chunk))
                progress = self._record_chunk(run, part, progress, chunk, counts)
                if time.monotonic() >= until:
                    break
        return progress.position == part.photos

    def progress(self, paths: RunPaths, part: RunPart) -> Progress:
        """Return how far the part has been read."""
        key = paths.progress(part.number)
        try:
            return Progress(*json.loads(self._objects.fetch(paths.bucket, key, max_bytes=_MAX_PROGRESS_BYTES).data))
        except ObjectRefused:
            return Progress()

    def _record_chunk(
        self,
        run: NightlyRun,
        part: RunPart,
        progress: Progress,
        photos: list[ListedObject],
        counts: list[NewCount | None],
    ) -> Progress:
        """Record the counts, have local workers count photos without one, and save the progress."""
        recorded = [count for count in counts if count is not None]
        uncounted = [photo for photo, count in zip(photos, counts, strict=True) if count is None]
        self._store.add_counts(recorded)
        for count in recorded:
            self._metrics.count_photo(count.reason)
        if uncounted:
            if self._runs.reload(run).ended is not None:
                raise RunEnded(f"nightly run {run.number} was ended by another process")
            self._recount(to_created_objects(self._settings.bucket, uncounted))
        progress = progress.after(recorded, len(uncounted))
        paths = paths_of(self._settings, run)
        body = json.dumps([progress.position, progress.recorded, progress.local, progress.failed]).encode()
        self._objects.put(paths.bucket, paths.progress(part.number), body)
        return progress
