"""Reads the answers of a run's jobs in chunks: records them, or has local workers count, and saves the progress."""

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

_CHUNK = 256
"""Answers read and recorded in one transaction."""
_MAX_PROGRESS_BYTES = 1000


class NotActive(BinwatchError):
    """Another process has ended the run, and so removed its answers."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of reading a part: photos processed (`position`), recorded, and sent to local workers (`local`).

    `failed`: recorded photos that could not be counted.
    """

    position: int = 0
    recorded: int = 0
    local: int = 0
    failed: int = 0

    def after(self, counts: Sequence[NewCount], local: int) -> Progress:
        """The progress after recording `counts` and sending `local` photos to local workers."""
        failed = sum(count.reason is not None for count in counts)
        return Progress(
            position=self.position + len(counts) + local,
            recorded=self.recorded + len(counts),
            local=self.local + local,
            failed=self.failed + failed,
        )


class Ingest:
    """Reads the parts of runs. Idempotent, also if two processes read the same part."""

    def __init__(
        self, settings: Settings, objects: Objects, database: Database, recount: Recount, metrics: WorkerMetrics
    ) -> None:
        self._settings = settings
        self._objects = objects
        self._runs = RunStore(objects, settings)
        self._store = Store(database, settings.bin_naming, settings.slicing)
        self._recount = recount
        self._metrics = metrics

    def note_model(self, run: NightlyRun) -> None:
        """Record the run's model before its first photo, so that its metrics start at 0."""
        self._store.use_model(run.model, card_of(self._objects, self._settings, run.model).calibration)

    def read(self, run: NightlyRun, part: RunPart, until: float) -> bool:
        """Read a part until time.monotonic() reaches `until`, at least one chunk; returns whether the part is done.

        Raises NotActive or ObjectRefused if another process has ended the run.
        """
        paths = paths_of(self._settings, run)
        progress = self.progress(paths, part)
        if progress.position == part.photos:
            return True
        self.note_model(run)
        photos = read_plan(self._objects, paths, part)
        outputs = Results(self._objects, paths, part.number, run.model)
        if part.job is not None:
            outputs.check_names(photos)
        with ThreadPoolExecutor(self._settings.fetch_threads, thread_name_prefix="answers") as pool:
            while progress.position < part.photos:
                chunk = photos[progress.position : progress.position + _CHUNK]
                found: list[NewCount | None] = [None] * len(chunk)
                if part.job is not None:
                    found = list(pool.map(outputs.count_of, chunk))
                progress = self._finish(run, part, progress, chunk, found)
                if time.monotonic() >= until:
                    break
        return progress.position == part.photos

    def progress(self, paths: RunPaths, part: RunPart) -> Progress:
        """How far the part has been read."""
        key = paths.progress(part.number)
        try:
            return Progress(*json.loads(self._objects.fetch(paths.bucket, key, max_bytes=_MAX_PROGRESS_BYTES).data))
        except ObjectRefused:
            return Progress()

    def _finish(
        self,
        run: NightlyRun,
        part: RunPart,
        progress: Progress,
        photos: list[ListedObject],
        found: list[NewCount | None],
    ) -> Progress:
        counts = [count for count in found if count is not None]
        left = [photo for photo, count in zip(photos, found, strict=True) if count is None]
        self._store.add_counts(counts)
        for count in counts:
            self._metrics.count_photo(count.reason)
        if left:
            if self._runs.now(run).ended is not None:
                raise NotActive(f"nightly run {run.number} was ended by another process")
            self._recount(to_created_objects(self._settings.bucket, left))
        done = progress.after(counts, len(left))
        paths = paths_of(self._settings, run)
        body = json.dumps([done.position, done.recorded, done.local, done.failed]).encode()
        self._objects.put(paths.bucket, paths.progress(part.number), body)
        return done
