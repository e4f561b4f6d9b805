"""Nightly runs on SageMaker, in steps that can be repeated, so that a crash costs at most one step.

Plan → claim → model and jobs → wait → records → clean up. No job starts before the claim, which only one process can
win. Afterwards, every process continues the same run (worker.sagemaker.nightly.run_store).
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine as Database

from binwatch.errors import BinwatchError
from binwatch.objects import ObjectRefused, Objects
from binwatch.sagemaker.requests import QuotaError
from binwatch.settings import Settings
from binwatch.text import count_noun
from worker.metrics import WorkerMetrics
from worker.nightly.selection import Selection, current_version, select_photos
from worker.reconcile import GracePeriod
from worker.sagemaker.nightly import cost
from worker.sagemaker.nightly.ingest import Ingest, RunEnded
from worker.sagemaker.nightly.jobs import JobState, TransformJobs, role_and_image
from worker.sagemaker.nightly.model import archive_key, make_model, model_name
from worker.sagemaker.nightly.plan import write_plan
from worker.sagemaker.nightly.recount import Recount
from worker.sagemaker.nightly.run_paths import RunPaths, paths_of, work_prefix
from worker.sagemaker.nightly.run_store import JobEnd, NightlyRun, RunOutcome, RunPart, RunStore

logger = logging.getLogger(__name__)

_ABANDONED_AGE = timedelta(days=1)
"""Age from which files of processes that crashed while planning are deleted."""


class Nightly:
    """Starts runs, and advances them without waiting."""

    def __init__(
        self,
        settings: Settings,
        objects: Objects,
        database: Database,
        recount: Recount,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        role_and_image(settings)
        self.runs = RunStore(objects, settings)
        self.jobs = TransformJobs(settings)
        self._settings = settings
        self._objects = objects
        self._database = database
        self._ingest = Ingest(settings, objects, database, recount, metrics or WorkerMetrics())

    def start(self, prefix: str = "", *, again: bool = False) -> NightlyRun | None:
        """Return the active run, or plan and claim a new one; None if there are no photos to count."""
        last = self.runs.latest()
        if last is not None and last.ended is None:
            return last
        if last is not None and not last.cleaned:
            self.clean_up(last)
        selection = Selection(current_version(self._objects, self._settings), prefix, again)
        run = self._plan(selection, last)
        if not run.parts:
            return None
        if not self.runs.claim(run):
            self._delete_files(paths_of(self._settings, run))
            return self.runs.active()
        logger.info("nightly: run %d: %s", run.number, self.estimate(run))
        self._ingest.record_model(run)
        return run

    def estimate(self, run: NightlyRun) -> str:
        """Return the run's photos and estimated cost as text."""
        sagemaker_photos = sum(part.photos for part in run.parts if part.job is not None)
        local_photos = sum(part.photos for part in run.parts if part.job is None)
        return cost.estimate_text(self._settings, sagemaker_photos, local_photos, run.photos_per_second)

    def advance(self, run: NightlyRun, within_s: float = float("inf")) -> NightlyRun:
        """Perform all steps that are possible now, and return the run, with `ended` set once it is complete.

        Answers are read for about `within_s` seconds, but at least until there is some progress.
        """
        until = time.monotonic() + within_s
        try:
            states: list[JobState | None] = []
            for part in run.parts:
                states.append(self._advance_job(run, part, states))
            is_done = [self._read(run, part, state, until) for part, state in zip(run.parts, states, strict=True)]
        except (ObjectRefused, RunEnded) as error:
            # Another process may have ended the run and removed its files.
            current = self.runs.reload(run)
            if current.ended is not None:
                return current
            raise BinwatchError(
                f"nightly run {run.number}: {error}; if its files were deleted by hand, stop its jobs"
                f" ({', '.join(run.jobs)}), delete {self.runs.url(run)}, and start another run"
            ) from error
        return self._end(run, [state for state in states if state is not None]) if all(is_done) else run

    def running_jobs(self, run: NightlyRun) -> list[str]:
        """Return the names of the run's jobs that cost money now."""
        states = [self.jobs.state(name) for name in run.jobs]
        return [state.name for state in states if state is not None and state.running]

    def _plan(self, selection: Selection, last: NightlyRun | None) -> NightlyRun:
        settings, now = self._settings, datetime.now(UTC)
        token = f"{now:%Y%m%d}-{uuid.uuid4().hex[:8]}"
        grace = GracePeriod(settings.reconcile_grace_s)
        pages = select_photos(self._objects, self._database, settings, selection, grace)
        return NightlyRun(
            number=last.number + 1 if last is not None else 1,
            token=token,
            started=now,
            model=selection.model,
            sagemaker_model=model_name(settings, selection.model),
            instance_type=settings.sagemaker.instance_type,
            instance_count=settings.sagemaker.instance_count,
            photos_per_second=cost.photos_per_second(settings, last),
            parts=tuple(write_plan(pages, self._objects, settings, paths_of(settings, token))),
        )

    def _advance_job(self, run: NightlyRun, part: RunPart, earlier: Sequence[JobState | None]) -> JobState | None:
        """Start the part's job unless it exists, stop it if it runs for too long, and return its state.

        `earlier` are the states of the jobs of the earlier parts. Returns None if the part has no job, or if the job
        cannot start yet.
        """
        if part.job is None:
            return None
        state = self.jobs.state(part.job)
        if state is None:
            self._start_job(run, part, part.job, [job for job in earlier if job is not None and job.running])
            state = self.jobs.state(part.job)
        elif state.status == "InProgress":
            hours = self._settings.sagemaker.job_hours
            if datetime.now(UTC) - (state.started or state.created) > timedelta(hours=hours):
                logger.warning("nightly: %s has run for over %g hours: stopped", part.job, hours)
                self.jobs.stop(part.job)
        return state

    def _start_job(self, run: NightlyRun, part: RunPart, name: str, running: Sequence[JobState]) -> None:
        paths = paths_of(self._settings, run)
        make_model(self._objects, self._settings, self.jobs, run.sagemaker_model, run.model)
        manifest, outputs = paths.url(paths.manifest(part.number)), paths.url(paths.outputs(part.number))
        try:
            self.jobs.start(name, run.sagemaker_model, manifest_url=manifest, outputs_url=outputs)
        except QuotaError as error:
            if not running:
                raise
            logger.info("nightly: %s; waiting for %s", error, ", ".join(job.name for job in running))
        else:
            logger.info("nightly: %s started for %s", name, count_noun(part.photos, "photo"))

    def _read(self, run: NightlyRun, part: RunPart, state: JobState | None, until: float) -> bool:
        if part.job is not None and (state is None or state.running):
            return False
        return self._ingest.read(run, part, until)

    def _end(self, run: NightlyRun, states: list[JobState]) -> NightlyRun:
        paths = paths_of(self._settings, run)
        parts = [self._ingest.progress(paths, part) for part in run.parts]
        jobs = tuple(JobEnd(name=s.name, status=s.status, reason=s.reason, seconds=s.seconds) for s in states)
        outcome = RunOutcome(
            recorded=sum(progress.recorded for progress in parts),
            local=sum(progress.local for progress in parts),
            failed=sum(progress.failed for progress in parts),
            jobs=jobs,
            instance_seconds=run.instance_count * sum(job.seconds for job in jobs),
        )
        ended = run.model_copy(update={"ended": datetime.now(UTC), "outcome": outcome})
        # Written before the clean-up, so that no process treats answers that are being removed as missing.
        if not self.runs.end(ended):  # another process has ended the run, and may have removed the progress files
            return self.runs.reload(run)
        logger.info("nightly: run %d ended: %s", run.number, self.summary(ended))
        return self.clean_up(ended)

    def summary(self, run: NightlyRun) -> str:
        """Return the results and the cost of a finished run as text."""
        if run.outcome is None:
            raise ValueError(f"run {run.number} has not ended")
        outcome = run.outcome
        failed_jobs = [f"{job.name} {job.status} ({job.reason})" for job in outcome.jobs if job.status != "Completed"]
        failed = f" ({outcome.failed} failed)" if outcome.failed else ""
        counted = f"{count_noun(outcome.recorded, 'photo')} recorded{failed}, {outcome.local:,} by local workers"
        return "; ".join([counted, f"cost: {cost.cost_text(self._settings, outcome.instance_seconds)}", *failed_jobs])

    def clean_up(self, run: NightlyRun) -> NightlyRun:
        """Remove the run's files and model, and the files of processes that crashed while planning."""
        self.jobs.delete_model(run.sagemaker_model)
        self._objects.delete(self._settings.bucket, [archive_key(self._settings, run.sagemaker_model)])
        self._delete_files(paths_of(self._settings, run))
        cutoff = datetime.now(UTC) - _ABANDONED_AGE
        listing = self._objects.list(self._settings.bucket, work_prefix(self._settings))
        self._objects.delete(self._settings.bucket, (listed.key for listed in listing if listed.modified < cutoff))
        cleaned = run.model_copy(update={"cleaned": True})
        self.runs.save(cleaned)
        return cleaned

    def _delete_files(self, paths: RunPaths) -> None:
        listing = self._objects.list(paths.bucket, paths.prefix)
        self._objects.delete(paths.bucket, (listed.key for listed in listing))
