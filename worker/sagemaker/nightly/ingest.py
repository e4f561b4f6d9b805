"""Reads what the jobs of a run answered, a chunk at a time: recorded, or given to local workers, and noted as done."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import Engine as Database

from binwatch.errors import BinwatchError
from binwatch.objects import Listed, ObjectRefused, Objects
from binwatch.records.store import NewCount, Store
from binwatch.settings import Settings
from worker.metrics import WorkerMetrics
from worker.reconcile import as_created
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
    """Someone else has ended the run, and so removed its answers."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a part has been read: photos done, and of those how many were recorded, and how many counted locally.

    `failed` are those of the recorded ones that could not be counted.
    """

    position: int = 0
    recorded: int = 0
    local: int = 0
    failed: int = 0

    def after(self, counts: Sequence[NewCount], local: int) -> Progress:
        """The progress once these are recorded, and so many counted locally."""
        failed = sum(count.reason is not None for count in counts)
        return Progress(
            position=self.position + len(counts) + local,
            recorded=self.recorded + len(counts),
            local=self.local + local,
            failed=self.failed + failed,
        )


class Ingest:
    """Reads the parts of runs. Reading a part again, or from two processes, changes nothing."""

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
        """Record that the run's model counts from now on, so that its metrics start at 0 before its first photo."""
        self._store.use_model(run.model, card_of(self._objects, self._settings, run.model).calibration)

    def read(self, run: NightlyRun, part: RunPart, until: float) -> bool:
        """Go on with a part until time.monotonic() is `until`, but for one chunk at least; whether the part is done.

        Raises NotActive or ObjectRefused if another has ended the run.
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
        self, run: NightlyRun, part: RunPart, progress: Progress, photos: list[Listed], found: list[NewCount | None]
    ) -> Progress:
        counts = [count for count in found if count is not None]
        left = [photo for photo, count in zip(photos, found, strict=True) if count is None]
        self._store.add_counts(counts)
        for count in counts:
            self._metrics.photo(count.reason)
        if left:
            if self._runs.now(run).ended is not None:
                raise NotActive(f"nightly run {run.number} was ended by another")
            self._recount(as_created(self._settings.bucket, left))
        done = progress.after(counts, len(left))
        paths = paths_of(self._settings, run)
        body = json.dumps([done.position, done.recorded, done.local, done.failed]).encode()
        self._objects.put(paths.bucket, paths.progress(part.number), body)
        return done
