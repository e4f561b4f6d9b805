"""Sizes of the images, time from `docker compose up` to the first counted photo, and throughput of a worker inside and
outside of a container.

PostgreSQL, RabbitMQ and versitygw run in their containers throughout. Photos are uploaded first, so their events wait
in RabbitMQ. Then a worker starts, alternately in its container and as a process on the host, and its rate is measured
between its first and its last record. Start-up is measured with built images, but without networks and volumes, and
with one photo in the folder.

    python -m benchmarks.containers PHOTOS_FOLDER [--photos 1000] [--rounds 2] [--starts 3]

Needs Linux and a Docker engine with Compose: the process on the host reaches the containers by their IP addresses.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

from sqlalchemy import Engine as Database
from sqlalchemy import func, select

from binwatch.records.engine import connect
from binwatch.records.tables import Count
from binwatch.settings import EventSource, Settings, process_environment
from testing.compose_stack import BUCKET, ROOT, Stack, docker
from testing.services.rabbitmq import free_ports

PORTS = ("S3_PORT", "MONITOR_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT", "RABBITMQ_PORT")
TIMEOUT_S = 600
MB = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--starts", type=int, default=3)
    options = parser.parse_args()
    files = sorted(options.folder.rglob("*.jpg"))
    with _stack() as stack:
        for image in ("binwatch-worker:test", "binwatch-monitor:test"):
            print(f"{image:<24}{json.loads(docker('image', 'inspect', image))[0]['Size'] / MB:7.0f} MB", flush=True)
        starts = [time_to_first_count(stack, files[0]) for _ in range(options.starts)]
        print(f"up to first counted photo {_list(starts)} s", flush=True)
        photos = [path.read_bytes() for path in islice(cycle(files), options.photos)]
        rates: dict[str, list[float]] = {"in a container": [], "outside": []}
        for round_index in range(options.rounds):
            # Reverse order in every second round, so that changes over time favour neither.
            for where in list(rates)[:: -1 if round_index % 2 else 1]:
                rates[where].append(rate(stack, photos, where == "outside"))
        for where, values in rates.items():
            print(f"worker {where:<18}{_list(values)} photos/s")
        inside, outside = (statistics.mean(values) for values in rates.values())
        print(f"in a container            {inside / outside:.1%} of outside")


def _list(numbers: list[float]) -> str:
    return ", ".join(f"{number:.1f}" for number in numbers)


@contextmanager
def _stack() -> Iterator[Stack]:
    """A Compose project with built images and no running containers."""
    folder = Path(tempfile.mkdtemp(prefix="binwatch-containers-"))
    stack = Stack(f"binwatch-bench-{uuid.uuid4().hex[:8]}", folder, dict(zip(PORTS, free_ports(5), strict=True)))
    stack.compose("build", "worker", "monitor")
    try:
        yield stack
    finally:
        stack.compose("down", "-v", check=False)
        shutil.rmtree(folder, ignore_errors=True)


def time_to_first_count(stack: Stack, photo: Path) -> float:
    """Seconds from `docker compose up` to the first record, without networks and volumes."""
    stack.compose("down", "-v")
    shutil.rmtree(stack.data, ignore_errors=True)
    first = stack.data / "photos" / BUCKET / "bin-images" / photo.name
    first.parent.mkdir(parents=True)
    shutil.copy(photo, first)
    if os.getuid() == 0:
        for path in (stack.data, *stack.data.rglob("*")):
            os.chown(path, int(stack.settings["DATA_UID"]), int(stack.settings["DATA_GID"]))
    began = time.monotonic()
    starting = threading.Thread(target=stack.up)
    starting.start()
    while not (stack.containers("postgres") and stack.sql("SELECT 1 FROM counts LIMIT 1")):
        if time.monotonic() > began + TIMEOUT_S:
            sys.exit(f"nothing was counted within {TIMEOUT_S} s: {stack.logs()}")
        time.sleep(0.2)
    seconds = time.monotonic() - began
    starting.join()
    return seconds


def rate(stack: Stack, photos: list[bytes], outside: bool) -> float:
    """Photos per second between a worker's first and last record."""
    stack.compose("stop", "beat", "worker")
    s3, run_id = stack.s3(), uuid.uuid4().hex[:8]
    keys = [f"bin-images/{run_id}/{number:06}.jpg" for number in range(len(photos))]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key, photo: s3.put_object(Bucket=BUCKET, Key=key, Body=photo), keys, photos))
    settings = _settings(stack)
    database = connect(settings.database_url.get_secret_value())
    with _outside(stack, settings) if outside else _inside(stack):
        seconds, counted = _follow(database, f"bin-images/{run_id}/", len(photos))
    database.dispose()
    return counted / seconds


@contextmanager
def _inside(stack: Stack) -> Iterator[None]:
    docker("start", stack.container("worker")["Id"])
    yield
    stack.compose("stop", "worker")


@contextmanager
def _outside(stack: Stack, settings: Settings) -> Iterator[None]:
    credentials = {
        "AWS_ACCESS_KEY_ID": stack.settings["S3_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": stack.settings["S3_SECRET_KEY"],
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with (stack.folder / "worker.log").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "worker", "run"],
            env=process_environment(settings) | credentials, cwd=ROOT, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(60)


def _settings(stack: Stack) -> Settings:
    """The settings of a worker's container, with addresses that are reachable from the host."""
    addresses: dict[str, str] = {}
    for name in ("postgres", "rabbitmq", "s3"):
        (network,) = stack.container(name)["NetworkSettings"]["Networks"].values()
        addresses[name] = network["IPAddress"]
    passwords = stack.settings
    return Settings(
        bucket=BUCKET,
        s3_endpoint_url=f"http://{addresses['s3']}:7070",
        database_url=f"postgresql://binwatch:{passwords['POSTGRES_PASSWORD']}@{addresses['postgres']}:5432/binwatch",
        event_source=EventSource.RABBITMQ,
        broker_url=f"amqp://binwatch:{passwords['RABBITMQ_PASSWORD']}@{addresses['rabbitmq']}:5672//",
        model_cache=stack.folder / "models",
    )


def _follow(database: Database, prefix: str, photos: int) -> tuple[float, int]:
    """Seconds from the first record to the last, and the photos recorded after the first transaction."""
    has_prefix = Count.key.startswith(prefix)
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        with database.connect() as connection:
            query = select(func.count(), func.min(Count.recorded_at), func.max(Count.recorded_at)).where(has_prefix)
            recorded, first, last = connection.execute(query).one()
            if recorded >= photos:
                first_batch = connection.scalar(select(func.count()).where(has_prefix, Count.recorded_at == first))
                return (last - first).total_seconds(), recorded - int(first_batch or 0)
        if time.monotonic() > deadline:
            sys.exit(f"only {recorded} of {photos} photos were recorded within {TIMEOUT_S} s")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
