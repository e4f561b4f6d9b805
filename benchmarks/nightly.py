"""Memory of a nightly run of many photos with the transform driver, and comparison of its records with a worker's.

Moto replaces S3 and SageMaker's API, and testing/transform_driver.py runs the transform job with the real container
(`python -m worker serve`), all on this machine. `python -m worker nightly` runs as a separate process. The resident
memory of both is sampled while they work: it must not grow with the number of photos. Then the same photos are counted
as by a local worker, and every record is compared.

    python -m benchmarks.nightly PHOTOS_FOLDER [--photos 10000]
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer
from pydantic import SecretStr
from sqlalchemy import select

from benchmarks.memory import process_memory
from benchmarks.services import ROOT, photos_of
from binwatch.events import ObjectCreated
from binwatch.keys import ObjectKind, kind_of
from binwatch.objects import Objects
from binwatch.records.engine import connect, sqlite_url
from binwatch.records.migrate import migrate
from binwatch.records.tables import Count
from binwatch.sagemaker.settings import SagemakerSettings
from binwatch.settings import Settings, adopt_environment, process_environment
from testing.transform_driver import Containers, TransformDriver
from worker.counting import Counting

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
}
GROUP_PHOTOS = 256
SAMPLE_INTERVAL_S = 0.5


class MemorySampler:
    """Samples the resident memory of a process in MiB, in a thread, from now until `stop` is called."""

    def __init__(self, pid: int) -> None:
        self.samples: list[float] = []
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def summary(self) -> str:
        """The mean of each quarter of the sampled time, and the peak."""
        size = max(1, len(self.samples) // 4)
        quarters = [self.samples[start : start + size] for start in range(0, 4 * size, size)]
        means = ", ".join(f"{sum(quarter) / len(quarter):.0f}" for quarter in quarters if quarter)
        return f"{means} MiB in the quarters of its time, at most {max(self.samples, default=0):.0f}"

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_INTERVAL_S):
            try:
                self.samples.append(process_memory(self._pid)[0] / 2**20)
            except OSError:  # it has ended
                return


class SampledContainers(Containers):
    """Containers whose memory is sampled once they are ready."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.memory: dict[int, MemorySampler] = {}

    def get(self, archive: bytes, environment: dict[str, str]) -> Any:
        container = super().get(archive, environment)
        pid = container.process.pid
        if pid not in self.memory:
            self.memory[pid] = MemorySampler(pid)
        return container


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=10_000)
    options = parser.parse_args()
    photos = photos_of(options.folder, options.photos)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="binwatch-nightly-")))
        settings = make_settings(stack.enter_context(moto()), folder / "nightly.db")
        s3 = boto3.client("s3", endpoint_url=settings.s3_endpoint_url)
        s3.create_bucket(Bucket=settings.bucket)
        for number, photo in enumerate(photos):
            s3.put_object(Bucket=settings.bucket, Key=f"bin-images/{number:06}.jpg", Body=photo)
        run_nightly(s3, settings, folder)
        local = settings.model_copy(update={"database_url": SecretStr(sqlite_url(folder / "local.db"))})
        count_locally(local)
        compare(rows(settings), rows(local), len(photos))


@contextmanager
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def make_settings(endpoint: str, database: Path) -> Settings:
    settings = Settings(
        bucket="bench",
        s3_endpoint_url=endpoint,
        database_url=SecretStr(sqlite_url(database)),
        sagemaker=SagemakerSettings(
            endpoint_url=endpoint,
            role="arn:aws:iam::123456789012:role/binwatch",
            image="123456789012.dkr.ecr.us-east-1.amazonaws.com/binwatch-worker:1",
        ),
        nightly_poll_s=1,
        reconcile_grace_s=0,
    )
    adopt_environment(process_environment(settings) | CREDENTIALS)
    return settings


def run_nightly(s3: Any, settings: Settings, folder: Path) -> None:
    migrate(connect(settings.database_url.get_secret_value()))
    containers = SampledContainers(folder / "opt-ml")
    with TransformDriver(s3, containers).running():
        started = time.perf_counter()
        command = [sys.executable, "-m", "worker", "nightly", "--backend", "sagemaker"]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        memory = MemorySampler(process.pid)
        status = process.wait()
        seconds = time.perf_counter() - started
    if status:
        sys.exit(f"the nightly command ended with {status}")
    memory.stop()
    for sampler in containers.memory.values():
        sampler.stop()
        print(f"container  {sampler.summary()}")
    containers.stop()
    print(f"command    {memory.summary()}")
    print(f"nightly    {seconds:.0f} s in all")


def count_locally(settings: Settings) -> None:
    migrate(connect(settings.database_url.get_secret_value()))
    counting = Counting(settings)
    listed = [photo for photo in Objects(settings).list(settings.bucket) if kind_of(photo.key) is ObjectKind.PHOTO]
    started = time.perf_counter()
    for start in range(0, len(listed), GROUP_PHOTOS):
        group = [
            ObjectCreated(settings.bucket, photo.key, photo.modified) for photo in listed[start : start + GROUP_PHOTOS]
        ]
        if outages := counting.count(group):
            sys.exit(f"{outages[0].error}")
    print(f"local      {time.perf_counter() - started:.0f} s in one process, one group after the other")
    counting.close()


def rows(settings: Settings) -> dict[str, dict[str, Any]]:
    """Key → record, without its id and time of recording."""
    with connect(settings.database_url.get_secret_value()).connect() as connection:
        records = connection.execute(select(Count.__table__)).mappings()
        return {row["key"]: {name: row[name] for name in row if name not in {"id", "recorded_at"}} for row in records}


def compare(nightly: dict[str, dict[str, Any]], local: dict[str, dict[str, Any]], photos: int) -> None:
    """Print how many records are exactly equal, and the differences of the others."""
    if nightly.keys() != local.keys() or len(local) != photos:
        sys.exit(f"{len(nightly)} records by the nightly run, {len(local)} by the worker, of {photos} photos")
    differing = [key for key in local if nightly[key] != local[key]]
    print(f"records    {photos - len(differing)} of {photos} are the same in every column")
    if differing:
        counts = sum(nightly[key]["predicted"] != local[key]["predicted"] for key in differing)
        max_difference = max(
            abs(a - b)
            for key in differing
            for a, b in zip(nightly[key]["probabilities"], local[key]["probabilities"], strict=True)
        )
        columns = {name for key in differing for name in local[key] if nightly[key][name] != local[key][name]}
        names = ", ".join(sorted(columns))
        print(f"           others differ in {names}; {counts} counts; by {max_difference:.1e} at most")


if __name__ == "__main__":
    main()
