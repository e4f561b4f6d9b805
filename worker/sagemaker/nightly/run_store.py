"""Stores the nightly runs on SageMaker in the bucket.

A run is one object, `nightly/runs/<number>`, written with a condition that only one of several writers can meet. The
names of its jobs and files are in the object, or derived from it. So every process continues the same run, even after a
crash or concurrently with another process, and no two processes start jobs for the same photos.
"""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from binwatch.bundle import Version
from binwatch.errors import BinwatchError
from binwatch.objects import FetchedObject, Objects
from binwatch.settings import Settings

_MAX_RUN_BYTES = 2**20


class _RunRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunPart(_RunRecord):
    """Consecutive photos of a run, by key. Local workers count the photos of a part without a job."""

    number: int
    photos: int
    job: str | None = None
    """Name of the transform job."""


class JobEnd(_RunRecord):
    """How a transform job ended."""

    name: str
    status: str
    reason: str | None = None
    seconds: float = 0.0
    """Seconds billed for each instance."""


class RunOutcome(_RunRecord):
    """The result of a run."""

    recorded: int
    """Number of photos recorded from the jobs' answers."""
    local: int
    """Number of photos that local workers counted, or that were sent to them."""
    failed: int = 0
    """Number of recorded photos that could not be counted."""
    jobs: tuple[JobEnd, ...] = ()
    instance_seconds: float = 0.0


class NightlyRun(_RunRecord):
    """One nightly run on SageMaker."""

    number: int
    token: str
    """Name of the run's folder, and part of the names of its jobs."""
    started: AwareDatetime
    model: Version
    sagemaker_model: str
    instance_type: str
    instance_count: int
    photos_per_second: float
    """Photos that one instance is expected to count per second."""
    parts: tuple[RunPart, ...]
    ended: AwareDatetime | None = None
    outcome: RunOutcome | None = None
    cleaned: bool = False
    """Whether the run's files and model are removed."""

    @property
    def jobs(self) -> list[str]:
        """Names of the run's transform jobs."""
        return [part.job for part in self.parts if part.job is not None]


class RunStore:
    """The runs of one bucket."""

    def __init__(self, objects: Objects, settings: Settings) -> None:
        self._objects = objects
        self._bucket = settings.bucket
        self._prefix = settings.nightly_prefix + "runs/"

    def latest(self) -> NightlyRun | None:
        """Return the run with the highest number; None if there are no runs."""
        keys = [listed.key for listed in self._objects.list(self._bucket, self._prefix)]
        return self._read(keys[-1]) if keys else None

    def active(self) -> NightlyRun | None:
        """Return the run that has not ended, if any. There is at most one."""
        run = self.latest()
        return run if run is not None and run.ended is None else None

    def claim(self, run: NightlyRun) -> bool:
        """Make `run` the active run. Returns False if its number is taken."""
        return self._objects.put_if_absent(self._bucket, self._key(run), run.model_dump_json(indent=1).encode())

    def save(self, run: NightlyRun) -> None:
        """Write the current state of a run."""
        self._objects.put(self._bucket, self._key(run), run.model_dump_json(indent=1).encode())

    def end(self, run: NightlyRun) -> bool:
        """Write the result of a run. Returns False if another process has already ended it."""
        stored = self._objects.fetch(self._bucket, self._key(run), max_bytes=_MAX_RUN_BYTES)
        if self._parse(self._key(run), stored).ended is not None:
            return False
        return self._objects.put_if_unchanged(
            self._bucket, self._key(run), run.model_dump_json(indent=1).encode(), stored
        )

    def reload(self, run: NightlyRun) -> NightlyRun:
        """Read the stored state of a run, which another process may have advanced."""
        return self._read(self._key(run))

    def url(self, run: NightlyRun) -> str:
        """URL of the run's object."""
        return f"s3://{self._bucket}/{self._key(run)}"

    def _key(self, run: NightlyRun) -> str:
        return f"{self._prefix}{run.number:08}"

    def _read(self, key: str) -> NightlyRun:
        return self._parse(key, self._objects.fetch(self._bucket, key, max_bytes=_MAX_RUN_BYTES))

    def _parse(self, key: str, stored: FetchedObject) -> NightlyRun:
        try:
            return NightlyRun.model_validate_json(stored.data)
        except ValidationError as error:
            raise BinwatchError(
                f"s3://{self._bucket}/{key} is damaged ({error}); look for transform jobs that still run (their names"
                " start with binwatch-nightly), then delete it"
            ) from error
