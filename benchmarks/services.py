"""Runs the whole system on this machine for a benchmark: versitygw, RabbitMQ, PostgreSQL and workers.

versitygw: `go install github.com/versity/versitygw/cmd/versitygw@latest`. RabbitMQ and PostgreSQL: Debian's packages
rabbitmq-server and postgresql. PostgreSQL runs without fsync.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import IO, Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import SecretStr
from sqlalchemy import Engine as Database
from sqlalchemy import func, select

from binwatch.keys import ObjectKind, kind_of
from binwatch.records.engine import connect
from binwatch.records.tables import Count
from binwatch.settings import DEFAULT_MODEL, EventSource, Settings, adopt_environment, process_environment
from testing.services.postgres import TEMPLATE, running_postgres
from testing.services.rabbitmq import free_ports, running_rabbitmq
from worker.brokers.rabbitmq.events import RabbitEventQueue

ROOT = Path(__file__).parents[1]
START_TIMEOUT_S = 60
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}
NO_VERSITYGW = (
    "versitygw is not installed: go install github.com/versity/versitygw/cmd/versitygw@latest, or give its path with"
    " --versitygw"
)


@dataclass(frozen=True, slots=True)
class Servers:
    """All servers except the workers. `s3` is a boto3 client."""

    settings: Settings
    s3: Any
    database: Database

    def put(self, key: str, photo: bytes) -> None:
        """Upload a photo; its event goes to RabbitMQ."""
        self.s3.put_object(Bucket=self.settings.bucket, Key=key, Body=photo)

    def recorded(self) -> int:
        """Number of recorded counts."""
        with self.database.connect() as connection:
            return int(connection.scalar(select(func.count()).select_from(Count)) or 0)


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """A worker's process id, and the URL of its HTTP server."""

    process: int
    url: str

    def scrape(self) -> str:
        """The worker's metrics in Prometheus's text format."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as response:
            return str(response.read().decode())


@contextmanager
def running_servers(versitygw: str, model: Path = DEFAULT_MODEL) -> Iterator[Servers]:
    """Start everything except the workers, and put the settings into the environment of this process.

    Exits if a server is not installed.
    """
    if shutil.which(versitygw) is None:
        sys.exit(NO_VERSITYGW)
    with ExitStack() as stack:
        try:
            postgres = stack.enter_context(running_postgres())
            rabbitmq = stack.enter_context(running_rabbitmq())
        except (pytest.skip.Exception, pytest.fail.Exception) as not_installed:
            sys.exit(str(not_installed))
        (s3_port,) = free_ports(1)
        settings = Settings(
            bucket="bench",
            s3_endpoint_url=f"http://127.0.0.1:{s3_port}",
            database_url=postgres.url(TEMPLATE),
            event_source=EventSource.RABBITMQ,
            model_dir=model,
            broker_url=rabbitmq.url,
            model_cache=Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="binwatch-models-"))),
        )
        adopt_environment(process_environment(settings) | CREDENTIALS)
        # Before versitygw starts, which drops events for a queue that does not exist.
        RabbitEventQueue(settings.model_copy(update={"broker_url": SecretStr(rabbitmq.url)})).create()
        stack.enter_context(_versitygw(versitygw, s3_port, rabbitmq.url, settings.event_queue))
        yield Servers(settings, _create_bucket(settings), connect(settings.database_url.get_secret_value()))


def find_versitygw() -> str:
    """The path of versitygw, which may not exist."""
    return shutil.which("versitygw") or str(Path.home() / "go/bin/versitygw")


@contextmanager
def running_worker(**environment: str) -> Iterator[RunningWorker]:
    """Run a worker within the context, and print its log if it ends with an error.

    `environment` adds to the settings in the environment of this process.
    """
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "worker", "run"]
    with tempfile.TemporaryFile("w+") as log:
        try:
            with _process(command, log, BINWATCH_WORKER_PORT=str(port), **environment) as process:
                yield RunningWorker(process.pid, f"http://127.0.0.1:{port}")
        finally:
            if process.returncode:
                log.seek(0)
                sys.stderr.write(log.read())


def photo_files(folder: Path) -> list[Path]:
    """The photos in a folder and its subfolders. Exits if there are none."""
    files = sorted(path for path in folder.rglob("*") if kind_of(path.name) is ObjectKind.PHOTO)
    if not files:
        sys.exit(f"{folder}: no photos here; name a folder with JPEG, PNG, WebP, BMP or GIF files")
    return files


def photos_of(folder: Path, count: int) -> list[bytes]:
    """The bytes of the first `count` photos of a folder, repeated if it has fewer. Exits if it has none."""
    photos = [path.read_bytes() for path in photo_files(folder)[:count]]
    return list(islice(cycle(photos), count))


@contextmanager
def _versitygw(program: str, port: int, broker: str, queue: str) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="binwatch-s3-") as folder:
        data, meta = Path(folder) / "data", Path(folder) / "meta"
        data.mkdir()
        meta.mkdir()
        access, secret = CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
        command = [program, "--access", access, "--secret", secret, "--port", f"127.0.0.1:{port}", "--quiet"]
        command += ["--event-rabbitmq-url", broker.removesuffix("/"), "--event-rabbitmq-routing-key", queue]
        command += ["posix", "--sidecar", str(meta), str(data)]
        with tempfile.TemporaryFile("w+") as log, _process(command, log):
            yield


@contextmanager
def _process(command: list[str], log: IO[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=os.environ | environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _create_bucket(settings: Settings) -> Any:
    """Create the bucket once the S3 server responds. Returns a boto3 client."""
    client = boto3.client("s3", endpoint_url=settings.s3_endpoint_url, region_name=settings.region)
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            client.create_bucket(Bucket=settings.bucket)
        except (BotoCoreError, ClientError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return client
