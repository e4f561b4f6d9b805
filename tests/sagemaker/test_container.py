"""Tests of the serving container as a process, from its start to SIGTERM."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from binwatch.bundle import Bundle
from testing.brightness import brightness_of, jpeg
from testing.transform_driver import Containers, JobFailed
from worker.sagemaker.nightly.model import archive

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts a container whose /opt/ml is this test's folder. It is killed at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(**settings: str) -> subprocess.Popen[str]:
        environment = {"SERVE_HOST": "127.0.0.1", "SERVE_PORT": "0", "SAGEMAKER_FOLDER": str(tmp_path), **settings}
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "serve"],
            cwd=ROOT,
            env={**os.environ, **{f"BINWATCH_{name}": value for name, value in environment.items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def port_of(container: subprocess.Popen[str]) -> int:
    """The port in the log on standard output, which is printed before the model is loaded."""
    for line in container.stdout:
        match = re.search(r"listening on \S+ port (\d+)", line)
        if match:
            return int(match[1])
    raise AssertionError(f"the container has ended: {container.stderr.read()}")


def ping(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)  # SageMaker's time-out
    connection.request("GET", "/ping")
    status = connection.getresponse().status
    connection.close()
    return status


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while ping(port) != 200:
        assert time.monotonic() < deadline, f"not ready within {TIMEOUT_S} s"
        time.sleep(0.02)  # polling interval


def test_requests_in_flight_are_answered_after_sigterm(start: Start, brightness_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(brightness_bundle)
    container = start()
    port = port_of(container)
    wait_until_ready(port)
    photo = jpeg(brightness_of(4))
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as client:
        head = f"POST /invocations HTTP/1.1\r\nHost: h\r\nContent-Length: {len(photo)}\r\n\r\n".encode()
        client.sendall(head + photo[:100])
        wait_until_ready(port)  # once a later request is answered, the container has read the first one's headers
        container.send_signal(signal.SIGTERM)
        for line in container.stdout:
            if "stopping" in line:
                break
        client.sendall(photo[100:])
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["count"]) == (200, "4")
    assert container.wait(TIMEOUT_S) == 0
    with pytest.raises(ConnectionRefusedError):
        ping(port)


@pytest.mark.parametrize(("folder", "address"), [("", "0.0.0.0"), ("none", "127.0.0.1")], ids=["inside", "outside"])
def test_only_sagemaker_containers_listen_on_all_interfaces(
    start: Start, brightness_bundle: Path, tmp_path: Path, folder: str, address: str
) -> None:
    (tmp_path / "model").symlink_to(brightness_bundle)
    container = start(SERVE_HOST="", SAGEMAKER_FOLDER=str(tmp_path / folder), MODEL_DIR=str(brightness_bundle))
    for line in container.stdout:
        if "listening on" in line:
            break
    assert f"listening on {address} port" in line


def test_container_without_model_exits_with_reason(start: Start, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    _, errors = (container := start()).communicate(timeout=TIMEOUT_S)
    assert container.returncode == 1
    assert errors.splitlines()[-1] == (
        f"error: {tmp_path / 'model'}: no card.json here or in a folder below; archive the files of a model bundle"
    )
    assert "Traceback" not in errors


def test_container_with_damaged_model_exits(start: Start, brightness_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for file in brightness_bundle.iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes() + (b" " if file.suffix == ".onnx" else b""))
    _, errors = (container := start()).communicate(timeout=TIMEOUT_S)
    assert (container.returncode, "its SHA-256 is" in errors.splitlines()[-1]) == (1, True)


def test_port_in_use(start: Start, brightness_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(brightness_bundle)
    with socket.create_server(("127.0.0.1", 0)) as socket_in_use:
        port = socket_in_use.getsockname()[1]
        _, errors = (container := start(SERVE_PORT=str(port))).communicate(timeout=TIMEOUT_S)
    assert container.returncode == 1
    message = errors.splitlines()[-1]
    assert message.startswith(f"error: cannot listen on 127.0.0.1 port {port}: Address already in use")
    assert message.endswith("; set BINWATCH_SERVE_HOST and BINWATCH_SERVE_PORT")


def test_archive_is_reproducible(brightness_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in brightness_bundle.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert archive(Bundle(copy)) == archive(Bundle(brightness_bundle))


def test_driver_detects_container_that_does_not_start(containers: Containers) -> None:
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w:gz").close()
    with pytest.raises(JobFailed, match=r"(?s)the container ended with 1: .*no card"):
        containers.get(empty.getvalue(), {})
