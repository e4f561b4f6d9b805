"""Starts and stops all services: S3 and SQS in this process (moto's server), worker and monitor in their own."""

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

from binwatch.errors import BinwatchError
from binwatch.objects import Objects
from binwatch.settings import EventSource, Settings, adopt_environment, process_environment
from demo.folder import database_url
from worker.provisioning import enable_event_notifications, make_bucket, make_queues, migrate_records

_ROOT = Path(__file__).parent.parent
_POLL_S = 0.05
_STOP_TIMEOUT_S = 20.0
_START_TIMEOUT_S = 60.0
_TOKEN_BYTES = 12
_NO_PROXY = {"NO_PROXY": "*", "no_proxy": "*"}
"""The demo connects only to this machine, which a proxy may not reach."""
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True, slots=True)
class Deployment:
    """The running services and the settings that they share."""

    settings: Settings
    objects: Objects
    worker: ServiceProcess
    monitor: ServiceProcess
    monitor_port: Path
    """File that the monitor writes its port to when it is ready."""

    def monitor_address(self) -> str:
        """Wait until the monitor is ready and return its URL. Raises BinwatchError after a minute."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self.monitor_port.exists():
            self.monitor.check()
            if time.monotonic() > deadline:
                raise BinwatchError(
                    f"the monitor was not ready within {_START_TIMEOUT_S:.0f} s; see {self.monitor.log}"
                )
            time.sleep(_POLL_S)
        return f"http://{self.settings.monitor_host}:{self.monitor_port.read_text().strip()}/"

    def check(self) -> None:
        """Raise BinwatchError, with the end of its log, if a process has ended by itself."""
        for process in (self.worker, self.monitor):
            process.check()


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """A process that the demo has started. `log` is the file with its output."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise BinwatchError, with the end of the log, if the process has ended."""
        if self.process.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise BinwatchError(f"the {self.name} ended by itself with status {self.process.returncode}:\n{tail}")

    def stop(self) -> None:
        """Stop the process by SIGTERM, or by SIGKILL after a timeout."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def running_deployment(settings: Settings, folder: Path) -> Iterator[Deployment]:
    """Start all services, with files in `folder`, and stop them at the end.

    Photos may be uploaded before the worker and the monitor are ready.
    """
    with ExitStack() as stack:
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it logs each request at INFO
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        stack.callback(server.stop)
        host, port = server.get_host_and_port()
        settings = _local_settings(settings, f"http://{host}:{port}", folder)
        adopt_environment(process_environment(settings) | _CREDENTIALS | _NO_PROXY)
        for provision in (migrate_records, make_queues, make_bucket, enable_event_notifications):
            provision(settings)
        worker = stack.enter_context(_running_process("worker", ["run"], folder))
        port_file = folder / "monitor.port"
        monitor = stack.enter_context(_running_process("monitor", ["serve", "--port-file", str(port_file)], folder))
        yield Deployment(settings, Objects(settings), worker, monitor, port_file)


def _local_settings(settings: Settings, endpoint: str, folder: Path) -> Settings:
    """Return the user's settings, with storage, queues and database replaced by those on this machine."""
    # The processes run in another folder than the user's, so relative paths must be resolved.
    paths = {name: value.resolve() for name, value in settings if isinstance(value, Path)}
    return settings.model_copy(
        update=paths
        | {
            "s3_endpoint_url": endpoint,
            "sqs_endpoint_url": endpoint,
            "event_source": EventSource.SQS,
            "broker_url": SecretStr(endpoint.replace("http://", "sqs://demo:demo@") + "//"),
            "database_url": SecretStr(database_url(folder)),
            # Not the default 8000, which many programs use, such as the monitor in containers.
            "monitor_port": settings.monitor_port if "monitor_port" in settings.model_fields_set else 0,
            "monitor_token": settings.monitor_token or SecretStr(secrets.token_urlsafe(_TOKEN_BYTES)),
        }
    )


@contextmanager
def _running_process(name: str, arguments: list[str], folder: Path) -> Iterator[ServiceProcess]:
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 (our own modules, by our own interpreter)
            [sys.executable, "-m", name, *arguments], stdout=output, stderr=subprocess.STDOUT, cwd=_ROOT
        )
    service = ServiceProcess(name, process, log)
    try:
        yield service
    finally:
        service.stop()
