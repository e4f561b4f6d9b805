"""`make pin` writes the digests that tags stand for, as a registry and the engine have them."""

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
        wanted = [part for depth in ("*", "*/*") for part in ("--filter", f"reference={registry.host}/{depth}")]
        kept = run(["docker", "images", "-q", "--no-trunc", *wanted]).stdout.split()
        if kept:
            run(["docker", "rmi", "-f", *set(kept)])


@pytest.fixture
def clone(engine: None, registry: ImageRegistry, tmp_path: Path) -> Path:
    """The files that name images, with all images at a registry of the test's own."""
    shutil.copytree(ROOT / "deploy/compose", tmp_path / "deploy/compose")
    for name in (*FILES, ".env.example", "Makefile"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = (ROOT / name).read_text()
        if name in FILES:
            text = LINE.sub(lambda line: line[0].replace(line[1], f"{registry.host}/{line[1]}").split("@")[0], text)
        (tmp_path / name).write_text(text)
    run([str(tmp_path / "deploy/compose/make-env")])
    return tmp_path


def _named(clone: Path) -> list[tuple[str, str]]:
    """Every image that a line names, as (name without the registry, tag)."""
    text = "".join((clone / file).read_text() for file in FILES)
    found = re.findall(r"^(?: +image:|FROM) 127[\d.]+:\d+/([\w./-]+):([\w.-]+)", text, re.MULTILINE)
    return [(name, tag) for name, tag in found]


def _publish(registry: ImageRegistry, clone: Path, content: bytes) -> dict[tuple[str, str], str]:
    return {(name, tag): registry.publish(name, tag, name.encode() + content) for name, tag in _named(clone)}


def _pin(clone: Path) -> tuple[int, str]:
    done = run(["make", "-C", str(clone), "pin"], check=False)
    return done.returncode, done.stdout + done.stderr


def _pinned(registry: ImageRegistry, clone: Path) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for file in FILES:
        for name, tag, digest in re.findall(rf"{registry.host}/([\w./-]+):([\w.-]+)@(\S+)", (clone / file).read_text()):
            found.setdefault((name, tag), set()).add(digest)
    return found


def test_digests_are_written_and_renewed(registry: ImageRegistry, clone: Path) -> None:
    named, before = _named(clone), {file: (clone / file).read_text() for file in FILES}
    assert {name for name, _ in named} == {
        "postgres", "rabbitmq", "python", "versity/versitygw", "prom/prometheus", "grafana/grafana"
    }  # fmt: skip
    for content in (b"first", b"renewed"):  # the tags then stand for other images
        digests = _publish(registry, clone, content)
        status, said = _pin(clone)
        assert status == 0, said
        assert "git diff" in said
        assert _pinned(registry, clone) == {image: {digest} for image, digest in digests.items()}
        assert len(_named(clone)) == len(named)
        # Nothing else has changed.
        assert {file: re.sub(r"@sha256:\w{64}", "", (clone / file).read_text()) for file in FILES} == before
    status, said = _pin(clone)
    assert (status, "all digests are as they were" in said) == (0, True)
    # Compose understands them, and pulls just these though the tags stand for others again.
    _publish(registry, clone, b"later")
    compose = str(clone / "deploy/compose/compose")
    run([compose, "pull", "postgres"])
    digest = digests["postgres", dict(named)["postgres"]]
    assert run(["docker", "image", "inspect", f"{registry.host}/postgres@{digest}"]).returncode == 0
    assert f"@{digest}" in run([compose, "config"]).stdout


def test_nothing_is_changed_if_an_image_cannot_be_had(registry: ImageRegistry, clone: Path) -> None:
    before = {file: (clone / file).read_text() for file in FILES}
    registry.publish(*_named(clone)[0], b"only one")
    status, said = _pin(clone)
    assert status != 0
    assert "cannot be pulled" in said
    assert "nothing was changed" in said
    assert {file: (clone / file).read_text() for file in FILES} == before
