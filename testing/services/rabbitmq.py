"""A real RabbitMQ from Debian's package, started for the test session and removed at its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu.connection import Connection

from testing.services.postgres import require_service
from testing.waiting import wait_until, wait_until_ready
from worker.brokers.rabbitmq.connections import BrokerBlocked, check_accepts_messages, make_connection

START_TIMEOUT_S = 90
# Not the wrapper in PATH, which requires root or Debian's own user and folders.
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class RabbitMQ:
    """A broker on a free port of the loopback address, with its files in one folder. It can be restarted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._distribution, self._epmd = free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"

    def start(self) -> None:
        """Start the broker, and wait until it accepts connections."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(SERVER)], env=self._environment(), stdout=log, stderr=log, start_new_session=True
            )
        read_log = (self._folder / "log").read_text
        wait_until_ready(self._process, self._connect, OSError, read_log, START_TIMEOUT_S)

    def stop(self, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        """Stop the broker: SIGTERM shuts it down cleanly, SIGKILL is like a power cut. Durable queues survive."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, stop_signal)
        self._process.wait(60)
        self._process = None

    def control(self, *arguments: str) -> None:
        """Run rabbitmqctl."""
        program = str(SERVER.with_name("rabbitmqctl"))
        result = subprocess.run([program, "-q", *arguments], env=self._environment(), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    @contextlib.contextmanager
    def alarm(self, kind: str) -> Iterator[None]:
        """Simulate low disk space or memory within the context. `kind`: disk or memory."""
        setting, bad, good = {
            "disk": ("set_disk_free_limit", str(10**15), "1000000"),
            "memory": ("set_vm_memory_high_watermark", "0.00001", "0.4"),
        }[kind]
        self.control(setting, bad)
        try:
            wait_until(self._is_blocked, lambda: f"no alarm of {kind}")
            yield
        finally:
            self.control(setting, good)
            wait_until(lambda: not self._is_blocked(), lambda: f"the alarm of {kind} does not end")

    def _connect(self) -> None:
        with Connection(self.url, connect_timeout=5) as connection:
            connection.connect()

    def _is_blocked(self) -> bool:
        with make_connection(self.url) as connection:
            try:
                check_accepts_messages(connection)
            except BrokerBlocked:
                return True
        return False

    def close(self) -> None:
        """Stop the broker and Erlang's port mapper, which it has started."""
        self.stop()
        epmd = shutil.which("epmd")
        if epmd is not None:
            subprocess.run([epmd, "-port", str(self._epmd), "-kill"], capture_output=True, check=False)

    def _environment(self) -> dict[str, str]:
        folder = str(self._folder)
        return {
            "PATH": os.environ["PATH"],
            "HOME": folder,  # for Erlang's cookie
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "binwatch-test@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
        }


def free_ports(count: int) -> list[int]:
    """`count` different ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A running RabbitMQ. Each test uses its own queue names."""
    with running_rabbitmq() as broker:
        yield broker


@contextlib.contextmanager
def running_rabbitmq() -> Iterator[RabbitMQ]:
    """Run a RabbitMQ within the context."""
    if not SERVER.exists():
        require_service("RabbitMQ", "on Debian: apt-get install rabbitmq-server")
    folder = Path(tempfile.mkdtemp(prefix="binwatch-mq-"))
    broker = RabbitMQ(folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.close()
        shutil.rmtree(folder, ignore_errors=True)
