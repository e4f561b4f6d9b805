"""`make up` and `make down` in a clone of their own, as docs/compose.md says."""

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
NOT_TO_BE_HAD = "127.0.0.1:1/grafana:12.3.0"
LEFT_OUT = "prometheus"


class Clone(Stack):
    """A stack that is started by the scripts of a clone, with Grafana's image at a registry that does not answer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(NAME, folder, dict(zip(PORTS, free_ports(len(PORTS)), strict=True)))
        for name in ("deploy", "binwatch", "worker", "monitor", "samples/model"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Makefile", ".dockerignore", "pyproject.toml", "requirements.lock", "docker-compose.yml"):
            shutil.copy(ROOT / name, folder / name)
        file = folder / "docker-compose.yml"
        file.write_text(re.sub(r"image: grafana/grafana:\S+", f"image: {NOT_TO_BE_HAD}", file.read_text()))

    def make(self, *arguments: str) -> tuple[int, str]:
        """Exit status of a target, and what it said."""
        done = run(["make", "-C", str(self.folder), *arguments], check=False, COMPOSE_PROJECT_NAME=NAME)
        return done.returncode, done.stdout + done.stderr


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


def test_an_image_that_cannot_be_pulled_stops_nothing_else(clone: Clone) -> None:
    status, said = clone.make("up")
    assert status != 0
    assert f"the image {NOT_TO_BE_HAD} of grafana is not here and cannot be pulled" in said
    assert "WITHOUT in .env leaves it out" in said
    wait_until(clone.healthy, lambda: f"not healthy: {clone.states()}")
    assert clone.states().keys() == {*SERVERS, *ONE_SHOT_SERVICES}

    status, said = clone.make("up", f"WITHOUT=grafana {LEFT_OUT}")
    assert status == 0, said
    assert clone.states().keys() == {*SERVERS, *ONE_SHOT_SERVICES} - {LEFT_OUT}

    # What only the trainer uses, which nothing here starts.
    label = {"project": NAME, "volume": "runs"}
    labels = [part for key, value in label.items() for part in ("--label", f"com.docker.compose.{key}={value}")]
    run(["docker", "volume", "create", *labels, f"{NAME}_runs"])
    status, said = clone.make("down", "ARGS=-v")
    assert status == 0, said
    assert run(["docker", "volume", "ls", "-q", "--filter", f"name={NAME}_"]).stdout == ""
    assert not clone.containers()
