"""Where the files of one run are in the bucket. No name ends like a photo's or a metadata file's: they are neither."""

from __future__ import annotations

from dataclasses import dataclass

from binwatch.settings import Settings
from worker.sagemaker.nightly.run_store import NightlyRun

_DIGITS = 4


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The folder of a run."""

    bucket: str
    work: str
    """What the folders of all runs are under; ends with a slash."""
    token: str

    @property
    def prefix(self) -> str:
        """What all keys in the folder begin with."""
        return f"{self.work}{self.token}/"

    def plan(self, part: int) -> str:
        """The photos of a part, one a line."""
        return f"{self.prefix}plan-{part:0{_DIGITS}}"

    def manifest(self, part: int) -> str:
        """The same as SageMaker reads it."""
        return f"{self.prefix}manifest-{part:0{_DIGITS}}"

    def progress(self, part: int) -> str:
        """How many photos of a part are done."""
        return f"{self.prefix}progress-{part:0{_DIGITS}}"

    def outputs(self, part: int) -> str:
        """What SageMaker is told to write its answers under."""
        return f"{self.prefix}out-{part:0{_DIGITS}}/"

    def output(self, part: int, key: str) -> str:
        """The answer of a photo."""
        return f"{self.outputs(part)}{key}.out"

    def url(self, key: str) -> str:
        """A key as SageMaker is told it."""
        return f"s3://{self.bucket}/{key}"


def work_prefix(settings: Settings) -> str:
    """Where the folders of all runs are."""
    return settings.nightly_prefix + "work/"


def paths_of(settings: Settings, run: NightlyRun | str) -> RunPaths:
    """The folder of a run, or of the token that a run will have."""
    return RunPaths(settings.bucket, work_prefix(settings), run if isinstance(run, str) else run.token)
