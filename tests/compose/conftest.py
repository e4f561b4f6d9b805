"""Fixtures of the container tests: one stack for the session, with built images, removed with its data at the end."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.compose_stack import BUCKET, ROOT, Stack, print_state_on_failure, run
from testing.services.rabbitmq import free_ports

PORTS = ("S3_PORT", "MONITOR_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT", "RABBITMQ_PORT")
EARLY_PHOTO_KEY = "bin-images/early.jpg"
"""Key of a photo that is in the folder before the stack is started."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Raise the time-out: building images takes minutes, which the first test waits for."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def engine() -> None:
    """Skip the test if there is no Docker engine or no Compose."""
    if shutil.which("docker") is None or run(["docker", "info"], check=False).returncode != 0:
        pytest.skip("no Docker engine answers (docker info)")
    if run([str(ROOT / "deploy/compose/compose"), "version"], check=False).returncode != 0:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")


@pytest.fixture(scope="session")
def images(engine: None) -> None:
    """Pull base images and third-party images. Skip the test if one is missing and cannot be pulled."""
    text = "".join((ROOT / name).read_text() for name in ("docker-compose.yml", "worker/Dockerfile"))
    images = set(re.findall(r"^(?:FROM|\s+image:) ([a-z/]+:[\w.@:-]+)", text, re.MULTILINE))
    for image in sorted(image for image in images if not image.startswith("grafana/")):
        is_present = run(["docker", "image", "inspect", image], check=False).returncode == 0
        if not is_present and run(["docker", "pull", "-q", image], check=False).returncode != 0:
            pytest.skip(f"the image {image} is missing and cannot be pulled")


@pytest.fixture(scope="session")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A healthy stack without Grafana, which was started with one photo in the folder."""
    folder = tmp_path_factory.mktemp("compose")
    stack = Stack(
        f"binwatch-test-{uuid.uuid4().hex[:8]}", folder, dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    )
    path = stack.data / "photos" / BUCKET / EARLY_PHOTO_KEY
    path.parent.mkdir(parents=True)
    shutil.copy(ROOT / "samples/bin-images/00184.jpg", path)
    _change_data_owner(stack)
    stack.compose("build", "worker", "monitor")
    try:
        with print_state_on_failure(stack):
            stack.up()
            yield stack
    finally:
        stack.compose("down", "-v", "--remove-orphans", check=False)
        run(["docker", "run", "--rm", "-u", "0", "-v", f"{folder}:/f", "--entrypoint", "chown", "binwatch-worker:test",
             "-R", f"{os.getuid()}:{os.getgid()}", "/f"], check=False)  # fmt: skip


def _change_data_owner(stack: Stack) -> None:
    """If tests run as root, give the photos' folder to the user that S3 runs as."""
    if os.getuid() == 0:
        for path in (stack.data, *stack.data.rglob("*")):
            os.chown(path, int(stack.settings["DATA_UID"]), int(stack.settings["DATA_GID"]))
