"""Keys of a run's files in the bucket. Their suffixes differ from those of photos and metadata files."""

from __future__ import annotations

from dataclasses import dataclass

from binwatch.settings import Settings
from worker.sagemaker.nightly.run_store import NightlyRun

_DIGITS = 4


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The keys of a run's files."""

    bucket: str
    work: str
    """Prefix of the folders of all runs, with a slash at the end."""
    token: str
    """Name of the run's folder."""

    @property
    def prefix(self) -> str:
        """Prefix of all keys of the run."""
        return f"{self.work}{self.token}/"

    def plan(self, part: int) -> str:
        """Key of the list of a part's photos, with one photo per line."""
        return f"{self.prefix}plan-{part:0{_DIGITS}}"

    def manifest(self, part: int) -> str:
        """Key of a part's manifest for SageMaker."""
        return f"{self.prefix}manifest-{part:0{_DIGITS}}"

    def progress(self, part: int) -> str:
        """Key of a part's progress."""
        return f"{self.prefix}progress-{part:0{_DIGITS}}"

    def outputs(self, part: int) -> str:
        """Prefix under which SageMaker writes a part's answers."""
        return f"{self.prefix}out-{part:0{_DIGITS}}/"

    def output(self, part: int, key: str) -> str:
        """Key of the answer for the photo at `key`."""
        return f"{self.outputs(part)}{key}.out"

    def url(self, key: str) -> str:
        """URL of a key, as SageMaker expects it."""
        return f"s3://{self.bucket}/{key}"


def work_prefix(settings: Settings) -> str:
    """Prefix of the folders of all runs."""
    return settings.nightly_prefix + "work/"


def paths_of(settings: Settings, run: NightlyRun | str) -> RunPaths:
    """Return the paths of a run, given the run or its token."""
    return RunPaths(settings.bucket, work_prefix(settings), run if isinstance(run, str) else run.token)
