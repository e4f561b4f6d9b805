"""The nightly runs on SageMaker, stored in the bucket.

A run is one object, `nightly/runs/<number>`, written with a condition that only one of several writers can meet. The
names of its jobs and files are in the object, or are derived from it. So every process, after a crash or concurrently
with another, continues the same run, and no two start jobs for the same photos.
"""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from binwatch.bundle import Version
from binwatch.errors import BinwatchError
from binwatch.objects import FetchedObject, Objects
from binwatch.settings import Settings

_MAX_BYTES = 2**20


class _RunRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunPart(_RunRecord):
    """Some photos of a run, in the order of their keys. Without a job they are counted by local workers."""

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
    """Seconds that are billed for each instance."""


class RunOutcome(_RunRecord):
    """Result of a run."""

    recorded: int
    """Photos recorded from the answers of the jobs."""
    local: int
    """Photos that local workers counted, or that were sent to them."""
    failed: int = 0
    """Of `recorded`, those that could not be counted."""
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
        """Names of its transform jobs."""
        return [part.job for part in self.parts if part.job is not None]


class RunStore:
    """The runs of one bucket."""

    def __init__(self, objects: Objects, settings: Settings) -> None:
        self._objects = objects
        self._bucket = settings.bucket
        self._prefix = settings.nightly_prefix + "runs/"

    def latest(self) -> NightlyRun | None:
        """The run with the highest number; None if there never was one."""
        keys = [listed.key for listed in self._objects.list(self._bucket, self._prefix)]
        return self._read(keys[-1]) if keys else None

    def active(self) -> NightlyRun | None:
        """The run that has not ended. There is one at most."""
        run = self.latest()
        return run if run is not None and run.ended is None else None

    def claim(self, run: NightlyRun) -> bool:
        """Make `run` the active one; False if its number is taken."""
        return self._objects.put_if_absent(self._bucket, self._key(run), run.model_dump_json(indent=1).encode())

    def save(self, run: NightlyRun) -> None:
        """Write the present state of a run."""
        self._objects.put(self._bucket, self._key(run), run.model_dump_json(indent=1).encode())

    def end(self, run: NightlyRun) -> bool:
        """Write the result of a run; False if another process has ended it before."""
        found = self._objects.fetch(self._bucket, self._key(run), max_bytes=_MAX_BYTES)
        if self._parsed(self._key(run), found).ended is not None:
            return False
        return self._objects.put_if_unchanged(
            self._bucket, self._key(run), run.model_dump_json(indent=1).encode(), found
        )

    def now(self, run: NightlyRun) -> NightlyRun:
        """The stored state of a run, which another process may have advanced."""
        return self._read(self._key(run))

    def url(self, run: NightlyRun) -> str:
        """URL of the run's object."""
        return f"s3://{self._bucket}/{self._key(run)}"

    def _key(self, run: NightlyRun) -> str:
        return f"{self._prefix}{run.number:08}"

    def _read(self, key: str) -> NightlyRun:
        return self._parsed(key, self._objects.fetch(self._bucket, key, max_bytes=_MAX_BYTES))

    def _parsed(self, key: str, found: FetchedObject) -> NightlyRun:
        try:
            return NightlyRun.model_validate_json(found.data)
        except ValidationError as error:
            raise BinwatchError(
                f"s3://{self._bucket}/{key} is damaged ({error}); look for transform jobs that still run (their names"
                " start with binwatch-nightly), then delete it"
            ) from error
