"""One stack for all tests of containers: images built, started, and taken down with all it kept."""

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
EARLY = "bin-images/early.jpg"
"""A photo that is in the folder before anything is started."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Building images takes minutes, and whichever test comes first waits for it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine with Compose, or a reason to skip."""
    if shutil.which("docker") is None or run(["docker", "info"], check=False).returncode != 0:
        pytest.skip("no Docker engine answers (docker info)")
    if run([str(ROOT / "deploy/compose/compose"), "version"], check=False).returncode != 0:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")


@pytest.fixture(scope="session")
def images(engine: None) -> None:
    """The images that ours are made from or run beside; where one is missing and cannot be pulled, a reason to skip."""
    text = "".join((ROOT / name).read_text() for name in ("docker-compose.yml", "worker/Dockerfile"))
    named = set(re.findall(r"^(?:FROM|\s+image:) ([a-z/]+:[\w.@:-]+)", text, re.MULTILINE))
    for image in sorted(name for name in named if not name.startswith("grafana/")):
        there = run(["docker", "image", "inspect", image], check=False).returncode == 0
        if not there and run(["docker", "pull", "-q", image], check=False).returncode != 0:
            pytest.skip(f"the image {image} is not there and cannot be pulled")


@pytest.fixture(scope="session")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything but Grafana, healthy, with one photo that was there first."""
    folder = tmp_path_factory.mktemp("compose")
    stack = Stack(
        f"binwatch-test-{uuid.uuid4().hex[:8]}", folder, dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    )
    early = stack.data / "photos" / BUCKET / EARLY
    early.parent.mkdir(parents=True)
    shutil.copy(ROOT / "samples/bin-images/00184.jpg", early)
    _give_away(stack)
    stack.compose("build", "worker", "monitor")
    try:
        with print_state_on_failure(stack):
            stack.up()
            yield stack
    finally:
        stack.compose("down", "-v", "--remove-orphans", check=False)
        run(["docker", "run", "--rm", "-u", "0", "-v", f"{folder}:/f", "--entrypoint", "chown", "binwatch-worker:test",
             "-R", f"{os.getuid()}:{os.getgid()}", "/f"], check=False)  # fmt: skip


def _give_away(stack: Stack) -> None:
    """The photos' folder belongs to the user that S3 runs as."""
    if os.getuid() == 0:
        for path in (stack.data, *stack.data.rglob("*")):
            os.chown(path, int(stack.settings["DATA_UID"]), int(stack.settings["DATA_GID"]))
