"""A nightly run of many photos through the transform driver: its memory, and its records compared with a worker's.

Moto stands in for S3 and SageMaker's API, and testing/transform_driver.py runs the transform job with the real
container (`python -m worker serve`), all on this machine. `python -m worker nightly` is a process of its own. The
resident memory of both is sampled while they work: it must not grow with the photos. Then the same photos are counted
in the way of a local worker, and every record is compared.

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

from benchmarks.memory import held
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
GROUP = 256
LOOK_S = 0.5


class Memory:
    """Resident memory of a process from now on, in MiB, every LOOK_S seconds."""

    def __init__(self, pid: int) -> None:
        self.samples: list[float] = []
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def in_words(self) -> str:
        """The mean of each quarter of the time, and the peak."""
        size = max(1, len(self.samples) // 4)
        quarters = [self.samples[start : start + size] for start in range(0, 4 * size, size)]
        means = ", ".join(f"{sum(part) / len(part):.0f}" for part in quarters if part)
        return f"{means} MiB in the quarters of its time, at most {max(self.samples, default=0):.0f}"

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                self.samples.append(held(self._pid)[0] / 2**20)
            except OSError:  # it has ended
                return


class Watched(Containers):
    """Containers whose memory is sampled from the moment when they are ready."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.memory: dict[int, Memory] = {}

    def get(self, archive: bytes, environment: dict[str, str]) -> Any:
        container = super().get(archive, environment)
        pid = container.process.pid
        if pid not in self.memory:
            self.memory[pid] = Memory(pid)
        return container


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=10_000)
    options = parser.parse_args()
    photos = photos_of(options.folder, options.photos)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="binwatch-nightly-")))
        settings = settings_on(stack.enter_context(moto()), folder / "nightly.db")
        s3 = boto3.client("s3", endpoint_url=settings.s3_endpoint_url)
        s3.create_bucket(Bucket=settings.bucket)
        for number, photo in enumerate(photos):
            s3.put_object(Bucket=settings.bucket, Key=f"bin-images/{number:06}.jpg", Body=photo)
        run_nightly(s3, settings, folder)
        beside = settings.model_copy(update={"database_url": SecretStr(sqlite_url(folder / "local.db"))})
        count_locally(beside)
        compare(rows(settings), rows(beside), len(photos))


@contextmanager
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def settings_on(endpoint: str, database: Path) -> Settings:
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
    containers = Watched(folder / "opt-ml")
    with TransformDriver(s3, containers).running():
        started = time.perf_counter()
        command = [sys.executable, "-m", "worker", "nightly", "--backend", "sagemaker"]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        memory = Memory(process.pid)
        status = process.wait()
        seconds = time.perf_counter() - started
    if status:
        sys.exit(f"the nightly command ended with {status}")
    memory.stop()
    for watched in containers.memory.values():
        watched.stop()
        print(f"container  {watched.in_words()}")
    containers.stop()
    print(f"command    {memory.in_words()}")
    print(f"nightly    {seconds:.0f} s in all")


def count_locally(settings: Settings) -> None:
    migrate(connect(settings.database_url.get_secret_value()))
    counting = Counting(settings)
    listed = [photo for photo in Objects(settings).list(settings.bucket) if kind_of(photo.key) is ObjectKind.PHOTO]
    started = time.perf_counter()
    for start in range(0, len(listed), GROUP):
        group = [ObjectCreated(settings.bucket, photo.key, photo.modified) for photo in listed[start : start + GROUP]]
        if outages := counting.count(group):
            sys.exit(f"{outages[0].error}")
    print(f"local      {time.perf_counter() - started:.0f} s in one process, one group after the other")
    counting.close()


def rows(settings: Settings) -> dict[str, dict[str, Any]]:
    """Key → record, without its id and time."""
    with connect(settings.database_url.get_secret_value()).connect() as connection:
        found = connection.execute(select(Count.__table__)).mappings()
        return {row["key"]: {name: row[name] for name in row if name not in {"id", "recorded_at"}} for row in found}


def compare(nightly: dict[str, dict[str, Any]], local: dict[str, dict[str, Any]], photos: int) -> None:
    """Print how many records are equal to the last digit, and the differences of the others."""
    if nightly.keys() != local.keys() or len(local) != photos:
        sys.exit(f"{len(nightly)} records by the nightly run, {len(local)} by the worker, of {photos} photos")
    other = [key for key in local if nightly[key] != local[key]]
    print(f"records    {photos - len(other)} of {photos} are the same in every column")
    if other:
        counts = sum(nightly[key]["predicted"] != local[key]["predicted"] for key in other)
        apart = max(
            abs(one - another)
            for key in other
            for one, another in zip(nightly[key]["probabilities"], local[key]["probabilities"], strict=True)
        )
        columns = {name for key in other for name in local[key] if nightly[key][name] != local[key][name]}
        print(f"           others differ in {', '.join(sorted(columns))}; {counts} counts; by {apart:.1e} at most")


if __name__ == "__main__":
    main()
