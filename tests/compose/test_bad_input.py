"""Tests that problems found before the start are reported with a remedy."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from testing.compose_stack import ROOT, Stack, run

ROLES = ("POSTGRES_WORKER_PASSWORD", "POSTGRES_MONITOR_PASSWORD", "S3_WORKER_SECRET_KEY", "S3_MONITOR_SECRET_KEY")
PASSWORDS = ("POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "S3_SECRET_KEY", "GRAFANA_PASSWORD", *ROLES)


@pytest.fixture
def checkout(engine: None, tmp_path: Path) -> Path:
    """A folder with the files that `make up` checks before it starts anything, and a valid .env."""
    shutil.copytree(ROOT / "deploy/compose", tmp_path / "deploy/compose")
    for name in (".env.example", "docker-compose.yml"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert _run_script(tmp_path, "make-env").returncode == 0
    return tmp_path


def _run_script(folder: Path, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # A free port, so that a Binwatch that runs on this machine does not interfere.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    names = ("S3_PORT", "MONITOR_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT", "RABBITMQ_PORT")
    return run([str(folder / "deploy/compose" / program)], check=False, **(dict.fromkeys(names, port) | environment))


def _check_error(folder: Path, **environment: str) -> str:
    """Run `check`, which must fail, and return its error output."""
    result = _run_script(folder, "check", **environment)
    assert result.returncode == 1
    return result.stderr


def test_new_env_is_private_and_valid(checkout: Path) -> None:
    text = (checkout / ".env").read_text()
    values = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert all(len(values[name]) == 32 for name in PASSWORDS)
    assert len({values[name] for name in PASSWORDS}) == len(PASSWORDS)
    assert values["DATA_UID"] == str(os.getuid() or 1000)
    assert (checkout / ".env").stat().st_mode & 0o077 == 0
    result = _run_script(checkout, "check")
    assert (result.returncode, result.stderr) == (0, "")
    assert (checkout / "data").stat().st_uid == int(values["DATA_UID"])


def test_env_is_not_overwritten(checkout: Path) -> None:
    before = (checkout / ".env").read_text()
    result = _run_script(checkout, "make-env")
    assert result.returncode == 1
    assert "there is a .env already" in result.stderr
    assert (checkout / ".env").read_text() == before


def test_env_of_older_version_gets_new_passwords(checkout: Path) -> None:
    env = checkout / ".env"
    old = "".join(line for line in env.read_text().splitlines(keepends=True) if not line.startswith(ROLES))
    env.write_text(old.rstrip("\n"))
    assert f"{ROLES[0]} is missing in .env: `make env` adds it" in _check_error(checkout)
    result = _run_script(checkout, "make-env")
    assert result.returncode == 0
    assert set(ROLES) == set(result.stdout.split(":")[1].split())
    text = env.read_text()
    assert text.startswith(old)
    added = dict(line.split("=") for line in text.removeprefix(old).splitlines())
    assert set(added) == set(ROLES)
    assert all(len(value) == 32 for value in added.values())
    assert len(set(added.values())) == len(ROLES)
    assert env.stat().st_mode & 0o077 == 0
    assert _run_script(checkout, "check").returncode == 0


def test_missing_env(checkout: Path) -> None:
    (checkout / ".env").unlink()
    assert "there is no .env: `make env` writes one" in _check_error(checkout)


def test_compose_alone_without_env(engine: None, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    result = run([str(ROOT / "deploy/compose/compose"), "--env-file", str(tmp_path / "empty"), "config"], check=False)
    assert result.returncode != 0
    assert 'run "make env" to write a .env' in result.stderr


@pytest.mark.parametrize(
    ("password", "message"), [("", "RABBITMQ_PASSWORD is empty"), ("a/b@c", "more than letters and digits")]
)
def test_invalid_password(checkout: Path, password: str, message: str) -> None:
    lines = (checkout / ".env").read_text().splitlines()
    changed = [f"RABBITMQ_PASSWORD={password}" if line.startswith("RABBITMQ_PASSWORD=") else line for line in lines]
    (checkout / ".env").write_text("\n".join(changed))
    assert message in _check_error(checkout)


@pytest.mark.parametrize("name", ["BINWATCH_BATCHSIZE", "BINWATCH_DATABASE_URL", "BINWATCH_SERVE_PORT"])
def test_ignored_setting(checkout: Path, name: str) -> None:
    with (checkout / ".env").open("a") as file:
        file.write(f"{name}=1\n")
    assert f"{name} in .env reaches no container" in _check_error(checkout)


def test_settings_outside_of_example(checkout: Path) -> None:
    with (checkout / ".env").open("a") as file:
        file.write("BINWATCH_SAGEMAKER_ROLE=arn\nBINWATCH_VERSION=1\n")
    result = _run_script(checkout, "check")
    assert (result.returncode, result.stderr) == (0, "")


def test_other_s3_needs_its_own_users(checkout: Path) -> None:
    with (checkout / ".env").open("a") as file:
        file.write("BINWATCH_S3_ENDPOINT_URL=https://s3.amazonaws.com\nS3_WORKER_ACCESS_KEY=AKIAWORKER\n")
    assert "S3_MONITOR_ACCESS_KEY and S3_MONITOR_SECRET_KEY in .env must be keys of a user there" in _check_error(
        checkout
    )
    with (checkout / ".env").open("a") as file:
        file.write("S3_MONITOR_ACCESS_KEY=AKIAMONITOR\n")
    result = _run_script(checkout, "check")
    assert (result.returncode, result.stderr) == (0, "")


def test_port_in_use(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as socket_in_use:
        port = socket_in_use.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is in use" in (error := _check_error(checkout, MONITOR_PORT=str(port)))
    assert "set MONITOR_PORT in .env" in error


def test_photos_owned_by_root(checkout: Path) -> None:
    assert "DATA_UID in .env is root's" in _check_error(checkout, DATA_UID="0")


def test_nearly_full_disk(checkout: Path) -> None:
    df = checkout / "bin/df"
    df.parent.mkdir()
    df.write_text("#!/bin/sh\necho Filesystem 1M-blocks Used Available\necho /dev/sda 9000 8600 400\n")
    df.chmod(0o755)
    error = _check_error(checkout, PATH=f"{df.parent}:{os.environ['PATH']}")
    assert "the photos' folder ./data has 400 MiB left on its disk: make room" in error


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU here")
def test_missing_gpu(checkout: Path) -> None:
    assert "no NVIDIA driver answers (nvidia-smi): install it, or start without GPU=1" in _check_error(
        checkout, GPU="1"
    )


def _check_folder(stack: Stack, *options: str) -> str:
    """Run the check of the service `folder` on a folder mounted with `options`, and return its error output."""
    script = f"{ROOT}/deploy/compose/check-folder:/check-folder:ro"
    names = ["-e", "DATA_DIR=./data", "-e", "DATA_UID=1000", "-e", "DATA_GID=1000"]
    result = run(
        ["docker", "run", "--rm", "-u", "1000:1000", *names, "-v", script, *options, "--entrypoint", "sh",
         "binwatch-worker:test", "/check-folder", "/data"],
        check=False,
    )  # fmt: skip
    assert result.returncode == 1, result.stdout
    return result.stderr


def test_full_folder(stack: Stack) -> None:
    assert "has 4 MiB left on its disk, too little" in _check_folder(stack, "--tmpfs", "/data:size=4m,mode=777")


def test_read_only_folder(stack: Stack, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    error = _check_folder(stack, "-v", f"{tmp_path}:/data:ro")
    assert "the photos' folder ./data is on a read-only file system" in error


def test_folder_of_other_user(stack: Stack) -> None:
    error = _check_folder(stack, "--tmpfs", "/data:mode=755")
    assert "cannot be written to by the user 1000:1000: chown -R 1000:1000 ./data" in error


@pytest.mark.parametrize("name", ["rabbitmq", "graphana"])
def test_leaving_out_required_service(checkout: Path, name: str) -> None:
    assert f"WITHOUT names {name}" in (error := _check_error(checkout, WITHOUT=f"grafana {name}"))
    assert "only monitor, prometheus, grafana can be left out" in error


def test_required_image_cannot_be_pulled(checkout: Path) -> None:
    """Nothing is started, and the image is named."""
    file = checkout / "docker-compose.yml"
    file.write_text(file.read_text().replace("image: postgres:", "image: 127.0.0.1:1/postgres:"))
    result = _run_script(checkout, "up")
    assert result.returncode == 1
    assert "the image 127.0.0.1:1/postgres:17.6-bookworm of postgres is not here and cannot be pulled" in result.stderr
    assert "docs/compose.md" in result.stderr
