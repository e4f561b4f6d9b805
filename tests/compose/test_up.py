"""Tests of `make up` and `make down` in a clone, as in docs/compose.md."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.compose_stack import ONE_SHOT_SERVICES, ROOT, SERVERS, Stack, run, wait_until
from testing.services.rabbitmq import free_ports
from tests.compose.conftest import PORTS

NAME = "binwatch-test-up"
UNAVAILABLE_IMAGE = "127.0.0.1:1/grafana:12.3.0"
LEFT_OUT = "prometheus"


class Clone(Stack):
    """A stack started by the scripts of a clone, with Grafana's image at a registry that does not respond."""

    def __init__(self, folder: Path) -> None:
        super().__init__(NAME, folder, dict(zip(PORTS, free_ports(len(PORTS)), strict=True)))
        for name in ("deploy", "binwatch", "worker", "monitor", "samples/model"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Makefile", ".dockerignore", "pyproject.toml", "requirements.lock", "docker-compose.yml"):
            shutil.copy(ROOT / name, folder / name)
        file = folder / "docker-compose.yml"
        file.write_text(re.sub(r"image: grafana/grafana:\S+", f"image: {UNAVAILABLE_IMAGE}", file.read_text()))

    def make(self, *arguments: str) -> tuple[int, str]:
        """Run a target. Returns the exit status and the output."""
        result = run(["make", "-C", str(self.folder), *arguments], check=False, COMPOSE_PROJECT_NAME=NAME)
        return result.returncode, result.stdout + result.stderr


@pytest.fixture
def clone(images: None, tmp_path: Path) -> Iterator[Clone]:
    clone = Clone(tmp_path)
    if os.getuid() == 0:
        clone.data.mkdir()
        os.chown(clone.data, 1000, 1000)
    try:
        yield clone
    finally:
        clone.make("down", "ARGS=-v")


def test_unavailable_image_stops_no_other_service(clone: Clone) -> None:
    status, output = clone.make("up")
    assert status != 0
    assert f"the image {UNAVAILABLE_IMAGE} of grafana is not here and cannot be pulled" in output
    assert "WITHOUT in .env leaves it out" in output
    wait_until(clone.healthy, lambda: f"not healthy: {clone.states()}")
    assert clone.states().keys() == {*SERVERS, *ONE_SHOT_SERVICES}

    status, output = clone.make("up", f"WITHOUT=grafana {LEFT_OUT}")
    assert status == 0, output
    assert clone.states().keys() == {*SERVERS, *ONE_SHOT_SERVICES} - {LEFT_OUT}

    # A volume of the trainer, which this test does not start.
    label = {"project": NAME, "volume": "runs"}
    labels = [part for key, value in label.items() for part in ("--label", f"com.docker.compose.{key}={value}")]
    run(["docker", "volume", "create", *labels, f"{NAME}_runs"])
    status, output = clone.make("down", "ARGS=-v")
    assert status == 0, output
    assert run(["docker", "volume", "ls", "-q", "--filter", f"name={NAME}_"]).stdout == ""
    assert not clone.containers()
