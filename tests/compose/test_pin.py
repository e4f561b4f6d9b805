"""Tests of `make pin`, which writes the current digests of image tags."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.compose_stack import ROOT, run
from testing.services.registry import ImageRegistry, running_registry

FILES = ("docker-compose.yml", "worker/Dockerfile", "monitor/Dockerfile", "trainer/Dockerfile")
LINE = re.compile(r"^(?: +image:|FROM) ([\w./-]+):([\w.-]+)(?:@sha256:[0-9a-f]{64})?(?= |$)", re.MULTILINE)


@pytest.fixture
def registry() -> Iterator[ImageRegistry]:
    with running_registry() as registry:
        yield registry
        filters = [part for depth in ("*", "*/*") for part in ("--filter", f"reference={registry.host}/{depth}")]
        images = run(["docker", "images", "-q", "--no-trunc", *filters]).stdout.split()
        if images:
            run(["docker", "rmi", "-f", *set(images)])


@pytest.fixture
def clone(engine: None, registry: ImageRegistry, tmp_path: Path) -> Path:
    """A folder with the files that name images, all of which are in the test's registry."""
    shutil.copytree(ROOT / "deploy/compose", tmp_path / "deploy/compose")
    for name in (*FILES, ".env.example", "Makefile"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = (ROOT / name).read_text()
        if name in FILES:
            text = LINE.sub(lambda line: line[0].replace(line[1], f"{registry.host}/{line[1]}").split("@")[0], text)
        (tmp_path / name).write_text(text)
    run([str(tmp_path / "deploy/compose/make-env")])
    return tmp_path


def _image_names(clone: Path) -> list[tuple[str, str]]:
    """(name without the registry, tag) of each image in the files."""
    text = "".join((clone / file).read_text() for file in FILES)
    images = re.findall(r"^(?: +image:|FROM) 127[\d.]+:\d+/([\w./-]+):([\w.-]+)", text, re.MULTILINE)
    return [(name, tag) for name, tag in images]


def _publish(registry: ImageRegistry, clone: Path, content: bytes) -> dict[tuple[str, str], str]:
    return {(name, tag): registry.publish(name, tag, name.encode() + content) for name, tag in _image_names(clone)}


def _pin(clone: Path) -> tuple[int, str]:
    result = run(["make", "-C", str(clone), "pin"], check=False)
    return result.returncode, result.stdout + result.stderr


def _pinned(registry: ImageRegistry, clone: Path) -> dict[tuple[str, str], set[str]]:
    digests: dict[tuple[str, str], set[str]] = {}
    for file in FILES:
        for name, tag, digest in re.findall(rf"{registry.host}/([\w./-]+):([\w.-]+)@(\S+)", (clone / file).read_text()):
            digests.setdefault((name, tag), set()).add(digest)
    return digests


def test_digests_are_written_and_updated(registry: ImageRegistry, clone: Path) -> None:
    named, before = _image_names(clone), {file: (clone / file).read_text() for file in FILES}
    assert {name for name, _ in named} == {
        "postgres", "rabbitmq", "python", "versity/versitygw", "prom/prometheus", "grafana/grafana"
    }  # fmt: skip
    for content in (b"first", b"renewed"):  # the tags then refer to other images
        digests = _publish(registry, clone, content)
        status, output = _pin(clone)
        assert status == 0, output
        assert "git diff" in output
        assert _pinned(registry, clone) == {image: {digest} for image, digest in digests.items()}
        assert len(_image_names(clone)) == len(named)
        # Nothing else changes.
        assert {file: re.sub(r"@sha256:\w{64}", "", (clone / file).read_text()) for file in FILES} == before
    status, output = _pin(clone)
    assert (status, "all digests are as they were" in output) == (0, True)
    # Compose accepts the digests, and pulls these images although the tags refer to others.
    _publish(registry, clone, b"later")
    compose = str(clone / "deploy/compose/compose")
    run([compose, "pull", "postgres"])
    digest = digests["postgres", dict(named)["postgres"]]
    assert run(["docker", "image", "inspect", f"{registry.host}/postgres@{digest}"]).returncode == 0
    assert f"@{digest}" in run([compose, "config"]).stdout


def test_nothing_changes_if_image_cannot_be_pulled(registry: ImageRegistry, clone: Path) -> None:
    before = {file: (clone / file).read_text() for file in FILES}
    registry.publish(*_image_names(clone)[0], b"only one")
    status, output = _pin(clone)
    assert status != 0
    assert "cannot be pulled" in output
    assert "nothing was changed" in output
    assert {file: (clone / file).read_text() for file in FILES} == before
