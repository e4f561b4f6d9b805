"""From "photo is in the bucket" to "record is written", beside the machine's limit on the same photos.

Starts versitygw, RabbitMQ, PostgreSQL (which here does not wait for the disk) and one worker, all on this machine. The
photos are put into the bucket first, so their events wait in RabbitMQ; then the worker starts, and the rate is that
between its first and its last record. The limit is decoding all photos on every core and then inferring them, from
memory to memory, before and after. At the end, single photos are put into the idle system and followed to records.

    python -m benchmarks.bucket_to_record PHOTOS_FOLDER [--photos 2000] [--versitygw PATH]

versitygw: `go install github.com/versity/versitygw/cmd/versitygw@latest`. RabbitMQ and PostgreSQL: Debian's packages.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path

import boto3
from sqlalchemy import Engine as Database
from sqlalchemy import func, select

from benchmarks.count_files import limit
from binwatch.bundle import Bundle
from binwatch.records.engine import connect
from binwatch.records.tables import Count
from binwatch.settings import EventSource, Settings, adopt_environment, process_environment
from tests.services.postgres import TEMPLATE, running_postgres
from tests.services.rabbitmq import free_ports, running_rabbitmq
from worker.engine import Engine
from worker.intake.rabbitmq import RabbitEvents

ROOT = Path(__file__).parent.parent
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}
WITHIN_S = 600
SINGLE = 30


def main() -> None:
    options = _options()
    files = sorted(options.folder.rglob("*.jpg"))
    photos = [path.read_bytes() for path in islice(cycle(files), options.photos)]
    engine = Engine(Bundle(Settings().model_dir))
    with ExitStack() as stack:
        settings = _start_services(stack, options.versitygw)
        database = connect(settings.database_url.get_secret_value())
        s3 = _bucket(settings)
        put_all(s3, settings.bucket, photos)
        before = sum(limit(engine, photos, settings.batch_size))
        worker = stack.enter_context(_worker(settings))
        seconds, counted = follow(database, len(photos))
        after = sum(limit(engine, photos, settings.batch_size))
        stages = scrape(worker)
        latencies = [single(s3, settings.bucket, database, photo) for photo in photos[:SINGLE]]
    show(engine, len(photos), (before + after) / 2, counted / seconds, stages, latencies)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--versitygw", default=shutil.which("versitygw") or str(Path.home() / "go/bin/versitygw"))
    return parser.parse_args()


def _start_services(stack: ExitStack, versitygw: str) -> Settings:
    """Broker, database and S3, in the order in which they need each other; returns the worker's settings."""
    postgres = stack.enter_context(running_postgres())
    rabbitmq = stack.enter_context(running_rabbitmq())
    s3_port, status_port = free_ports(2)
    settings = Settings(
        bucket="bench",
        s3_endpoint_url=f"http://127.0.0.1:{s3_port}",
        database_url=postgres.url(TEMPLATE),
        event_source=EventSource.RABBITMQ,
        broker_url=rabbitmq.url,
        worker_port=status_port,
        model_cache=Path(tempfile.gettempdir()) / f"binwatch-bench-{uuid.uuid4().hex}",
    )
    adopt_environment(process_environment(settings) | CREDENTIALS)
    events = RabbitEvents(
        rabbitmq.url, settings.event_queue, settings.event_dead_letter_queue, prefetch=1, timeout_s=10
    )
    events.declare()  # versitygw drops events for a queue that is not there
    events.close()
    stack.enter_context(_versitygw(versitygw, s3_port, rabbitmq.url, settings.event_queue))
    return settings


@contextmanager
def _versitygw(program: str, port: int, broker: str, queue: str) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="binwatch-s3-") as folder:
        data = Path(folder) / "data"
        data.mkdir()
        command = [
            program,
            "--access",
            CREDENTIALS["AWS_ACCESS_KEY_ID"],
            "--secret",
            CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        ]
        command += ["--port", f"127.0.0.1:{port}", "--quiet", "--event-rabbitmq-url", broker.removesuffix("/")]
        command += ["--event-rabbitmq-routing-key", queue, "posix", "--sidecar", f"{folder}/meta", str(data)]
        (Path(folder) / "meta").mkdir()
        with (Path(folder) / "log").open("wb") as log, _process(command, log):
            yield


@contextmanager
def _worker(settings: Settings) -> Iterator[str]:
    """A worker; gives the address of its metrics."""
    with tempfile.TemporaryFile() as log, _process([sys.executable, "-m", "worker", "run"], log):
        yield f"http://127.0.0.1:{settings.worker_port}"


@contextmanager
def _process(command: list[str], log: object) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _bucket(settings: Settings) -> object:
    client = boto3.client("s3", endpoint_url=settings.s3_endpoint_url, region_name=settings.region)
    deadline = time.monotonic() + 30
    while True:
        try:
            client.create_bucket(Bucket=settings.bucket)
            return client
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def put_all(s3: object, bucket: str, photos: list[bytes]) -> None:
    """Upload all photos, each under a key of its own."""
    with ThreadPoolExecutor(8) as pool:
        keys = (f"bin-images/{n:06}.jpg" for n in range(len(photos)))
        list(pool.map(lambda key, photo: s3.put_object(Bucket=bucket, Key=key, Body=photo), keys, photos))


def follow(database: Database, photos: int) -> tuple[float, int]:
    """Seconds from the first record to the last, and the photos recorded after the first transaction."""
    deadline = time.monotonic() + WITHIN_S
    while (found := _count(database)) < photos:
        if time.monotonic() > deadline:
            sys.exit(f"only {found} of {photos} photos were recorded within {WITHIN_S} s")
        time.sleep(0.2)
    with database.connect() as connection:
        first, last = connection.execute(select(func.min(Count.recorded_at), func.max(Count.recorded_at))).one()
        head = connection.scalar(select(func.count()).where(Count.recorded_at == first))
    return (last - first).total_seconds(), photos - int(head or 0)


def _count(database: Database) -> int:
    with database.connect() as connection:
        return int(connection.scalar(select(func.count()).select_from(Count)) or 0)


def single(s3: object, bucket: str, database: Database, photo: bytes) -> float:
    """Seconds from the end of one upload to its record, with nothing else going on."""
    key = f"bin-images/{uuid.uuid4().hex}.jpg"
    s3.put_object(Bucket=bucket, Key=key, Body=photo)
    started = time.perf_counter()
    while True:
        with database.connect() as connection:
            if connection.scalar(select(Count.id).where(Count.key == key)) is not None:
                return time.perf_counter() - started
        time.sleep(0.005)


def scrape(worker: str) -> dict[str, float]:
    """By the worker's own metrics: mean milliseconds of each stage, and mean size of a batch."""
    text = urllib.request.urlopen(worker + "/metrics", timeout=10).read().decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    found = {}
    for stage in ("fetch", "decode", "infer", "record"):
        label = f'{{stage="{stage}"}}'
        total = float(values[f"binwatch_worker_stage_seconds_sum{label}"])
        found[f"{stage}, ms"] = 1000 * total / float(values[f"binwatch_worker_stage_seconds_count{label}"])
    batches = float(values["binwatch_worker_batch_photos_count"])
    return found | {"photos in a batch": float(values["binwatch_worker_batch_photos_sum"]) / batches}


def show(
    engine: Engine, photos: int, limit_s: float, rate: float, stages: dict[str, float], latencies: list[float]
) -> None:
    print(f"{photos} photos, {len(os.sched_getaffinity(0))} cores, {engine.precision}, {engine.provider}")
    print(f"limit in memory, before and after  {photos / limit_s:7.1f} photos/s")
    print(f"bucket to record                   {rate:7.1f} photos/s  {rate * limit_s / photos:.1%} of the limit")
    for name, value in stages.items():
        print(f"  mean {name:<28}{value:7.1f}")
    typical, longest = statistics.median(latencies), max(latencies)
    print(f"one photo, idle system             {typical:7.3f} s median, {longest:.3f} s longest of {len(latencies)}")


if __name__ == "__main__":
    main()
