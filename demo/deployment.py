"""Starts and stops the parts: S3 and SQS in this process (moto's server), the worker and the monitor in their own."""

from __future__ import annotations

import logging
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from binwatch.aws import make_client
from binwatch.errors import BinwatchError
from binwatch.objects import Objects
from binwatch.records.engine import connect
from binwatch.records.migrate import migrate
from binwatch.settings import EventSource, Settings, adopt_environment, process_environment
from demo.folder import database_url
from worker.brokers.choice import choose_queues
from worker.brokers.sqs.queues import queue_arn, queue_url, sqs_client

_ROOT = Path(__file__).parent.parent
_POLL_S = 0.05
_STOP_WITHIN_S = 20.0
_START_WITHIN_S = 60.0
_TOKEN_BYTES = 12
_NO_PROXY = {"NO_PROXY": "*", "no_proxy": "*"}
"""The demo speaks to this machine alone, and no proxy can be asked for that."""
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True, slots=True)
class Deployment:
    """The running parts. `settings` reach all of them."""

    settings: Settings
    objects: Objects
    worker: ServiceProcess
    monitor: ServiceProcess
    monitor_port: Path
    """File that the monitor writes its port to once it answers."""

    def monitor_address(self) -> str:
        """URL of the monitor's page, once it answers."""
        return f"http://{self.settings.monitor_host}:{_wait_for(self.monitor_port, self.monitor)}/"

    def check(self) -> None:
        """Raise BinwatchError, with the end of its log, if a part has ended by itself."""
        for part in (self.worker, self.monitor):
            part.check()


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """A process of ours and where its output goes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise BinwatchError, with the end of its log, if it has ended."""
        if self.process.poll() is not None:
            end = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise BinwatchError(f"the {self.name} ended by itself with status {self.process.returncode}:\n{end}")

    def stop(self) -> None:
        """TERM, and KILL if that does not help."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def running_deployment(settings: Settings, folder: Path) -> Iterator[Deployment]:
    """All parts started, with their files in `folder`; stopped on leaving. Photos may come before they are ready."""
    with ExitStack() as stack:
        settings = _embedded(settings, stack.enter_context(_moto()), folder)
        adopt_environment(process_environment(settings) | _CREDENTIALS | _NO_PROXY)
        migrate(connect(settings.database_url.get_secret_value()))
        _wire(settings)
        worker = stack.enter_context(_part("worker", ["run"], folder))
        port_file = folder / "monitor.port"
        monitor = stack.enter_context(_part("monitor", ["serve", "--port-file", str(port_file)], folder))
        yield Deployment(settings, Objects(settings), worker, monitor, port_file)


@contextmanager
def _moto() -> Iterator[str]:
    """S3 and SQS on a free port of the loopback address; gives the address."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def _embedded(settings: Settings, endpoint: str, folder: Path) -> Settings:
    """The user's settings, but with all that is stored or queued on this machine."""
    return settings.model_copy(
        update={
            "s3_endpoint_url": endpoint,
            "sqs_endpoint_url": endpoint,
            "event_source": EventSource.SQS,
            "broker_url": SecretStr(endpoint.replace("http://", "sqs://demo:demo@") + "//"),
            "database_url": SecretStr(database_url(folder)),
            # 8000 is where many things listen, the monitor in containers among them.
            "monitor_port": settings.monitor_port if "monitor_port" in settings.model_fields_set else 0,
            "monitor_token": settings.monitor_token or SecretStr(secrets.token_urlsafe(_TOKEN_BYTES)),
        }
    )


def _wire(settings: Settings) -> None:
    """Make the queues and the bucket, and have the bucket announce new objects."""
    sqs = sqs_client(settings)
    choose_queues(settings).create()
    s3 = make_client("s3", endpoint_url=settings.s3_endpoint_url, region_name=settings.region)
    s3.create_bucket(Bucket=settings.bucket)
    arn = queue_arn(sqs, queue_url(sqs, settings.event_queue))
    s3.put_bucket_notification_configuration(
        Bucket=settings.bucket,
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]},
    )


@contextmanager
def _part(name: str, arguments: list[str], folder: Path) -> Iterator[ServiceProcess]:
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 (our own modules, by our own interpreter)
            [sys.executable, "-m", name, *arguments], stdout=output, stderr=subprocess.STDOUT, cwd=_ROOT
        )
    part = ServiceProcess(name, process, log)
    try:
        yield part
    finally:
        part.stop()


def _wait_for(file: Path, part: ServiceProcess) -> str:
    """What a part writes into `file` once it is ready."""
    deadline = time.monotonic() + _START_WITHIN_S
    while not file.exists():
        part.check()
        if time.monotonic() > deadline:
            raise BinwatchError(f"the {part.name} was not ready within {_START_WITHIN_S:.0f} s; see {part.log}")
        time.sleep(_POLL_S)
    return file.read_text().strip()
