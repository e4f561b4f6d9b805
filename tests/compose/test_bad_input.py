"""What is wrong before anything starts, and that it is said with what to do about it."""

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
    """What `make up` looks at before it starts anything, in a folder of its own, with a good .env."""
    shutil.copytree(ROOT / "deploy/compose", tmp_path / "deploy/compose")
    for name in (".env.example", "docker-compose.yml"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert _in(tmp_path, "make-env").returncode == 0
    return tmp_path


def _in(folder: Path, program: str, **changes: str) -> subprocess.CompletedProcess[str]:
    # Ports that no one else uses, so that a Binwatch that runs on this machine is no obstacle.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    names = ("S3_PORT", "MONITOR_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT", "RABBITMQ_PORT")
    return run([str(folder / "deploy/compose" / program)], check=False, **(dict.fromkeys(names, port) | changes))


def _refused(folder: Path, **changes: str) -> str:
    done = _in(folder, "check", **changes)
    assert done.returncode == 1
    return done.stderr


def test_a_new_env_is_private_and_good(checkout: Path) -> None:
    text = (checkout / ".env").read_text()
    values = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert all(len(values[name]) == 32 for name in PASSWORDS)
    assert len({values[name] for name in PASSWORDS}) == len(PASSWORDS)
    assert values["DATA_UID"] == str(os.getuid() or 1000)
    assert (checkout / ".env").stat().st_mode & 0o077 == 0
    done = _in(checkout, "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert (checkout / "data").stat().st_uid == int(values["DATA_UID"])


def test_an_env_is_never_written_over(checkout: Path) -> None:
    before = (checkout / ".env").read_text()
    done = _in(checkout, "make-env")
    assert done.returncode == 1
    assert "there is a .env already" in done.stderr
    assert (checkout / ".env").read_text() == before


def test_an_env_of_an_older_version_gets_the_passwords_that_are_new(checkout: Path) -> None:
    env = checkout / ".env"
    old = "".join(line for line in env.read_text().splitlines(keepends=True) if not line.startswith(ROLES))
    env.write_text(old.rstrip("\n"))
    assert f"{ROLES[0]} is missing in .env: `make env` adds it" in _refused(checkout)
    done = _in(checkout, "make-env")
    assert done.returncode == 0
    assert set(ROLES) == set(done.stdout.split(":")[1].split())
    text = env.read_text()
    assert text.startswith(old)
    added = dict(line.split("=") for line in text.removeprefix(old).splitlines())
    assert set(added) == set(ROLES)
    assert all(len(value) == 32 for value in added.values())
    assert len(set(added.values())) == len(ROLES)
    assert env.stat().st_mode & 0o077 == 0
    assert _in(checkout, "check").returncode == 0


def test_no_env(checkout: Path) -> None:
    (checkout / ".env").unlink()
    assert "there is no .env: `make env` writes one" in _refused(checkout)


def test_no_env_with_compose_alone(engine: None, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    done = run([str(ROOT / "deploy/compose/compose"), "--env-file", str(tmp_path / "empty"), "config"], check=False)
    assert done.returncode != 0
    assert 'run "make env" to write a .env' in done.stderr


@pytest.mark.parametrize(
    ("password", "message"), [("", "RABBITMQ_PASSWORD is empty"), ("a/b@c", "more than letters and digits")]
)
def test_a_password_that_cannot_work(checkout: Path, password: str, message: str) -> None:
    lines = (checkout / ".env").read_text().splitlines()
    changed = [f"RABBITMQ_PASSWORD={password}" if line.startswith("RABBITMQ_PASSWORD=") else line for line in lines]
    (checkout / ".env").write_text("\n".join(changed))
    assert message in _refused(checkout)


@pytest.mark.parametrize("name", ["BINWATCH_BATCHSIZE", "BINWATCH_DATABASE_URL", "BINWATCH_SERVE_PORT"])
def test_a_setting_that_would_be_ignored(checkout: Path, name: str) -> None:
    with (checkout / ".env").open("a") as file:
        file.write(f"{name}=1\n")
    assert f"{name} in .env reaches no container" in _refused(checkout)


def test_settings_that_are_not_in_the_example(checkout: Path) -> None:
    with (checkout / ".env").open("a") as file:
        file.write("BINWATCH_SAGEMAKER_ROLE=arn\nBINWATCH_VERSION=1\n")
    done = _in(checkout, "check")
    assert (done.returncode, done.stderr) == (0, "")


def test_another_s3_has_users_of_its_own(checkout: Path) -> None:
    with (checkout / ".env").open("a") as file:
        file.write("BINWATCH_S3_ENDPOINT_URL=https://s3.amazonaws.com\nS3_WORKER_ACCESS_KEY=AKIAWORKER\n")
    assert "S3_MONITOR_ACCESS_KEY and S3_MONITOR_SECRET_KEY in .env must be keys of a user there" in _refused(checkout)
    with (checkout / ".env").open("a") as file:
        file.write("S3_MONITOR_ACCESS_KEY=AKIAMONITOR\n")
    done = _in(checkout, "check")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_port_in_use(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is in use" in (said := _refused(checkout, MONITOR_PORT=str(port)))
    assert "set MONITOR_PORT in .env" in said


def test_photos_that_would_be_roots(checkout: Path) -> None:
    assert "DATA_UID in .env is root's" in _refused(checkout, DATA_UID="0")


def test_a_disk_that_is_nearly_full(checkout: Path) -> None:
    df = checkout / "bin/df"
    df.parent.mkdir()
    df.write_text("#!/bin/sh\necho Filesystem 1M-blocks Used Available\necho /dev/sda 9000 8600 400\n")
    df.chmod(0o755)
    said = _refused(checkout, PATH=f"{df.parent}:{os.environ['PATH']}")
    assert "the photos' folder ./data has 400 MiB left on its disk: make room" in said


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU here")
def test_no_gpu(checkout: Path) -> None:
    assert "no NVIDIA driver answers (nvidia-smi): install it, or start without GPU=1" in _refused(checkout, GPU="1")


def _check_folder(stack: Stack, *options: str) -> str:
    """What the service `folder` says of a folder that is mounted with `options`."""
    script = f"{ROOT}/deploy/compose/check-folder:/check-folder:ro"
    names = ["-e", "DATA_DIR=./data", "-e", "DATA_UID=1000", "-e", "DATA_GID=1000"]
    done = run(
        ["docker", "run", "--rm", "-u", "1000:1000", *names, "-v", script, *options, "--entrypoint", "sh",
         "binwatch-worker:test", "/check-folder", "/data"],
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    return done.stderr


def test_a_full_folder(stack: Stack) -> None:
    assert "has 4 MiB left on its disk, too little" in _check_folder(stack, "--tmpfs", "/data:size=4m,mode=777")


def test_a_read_only_folder(stack: Stack, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    said = _check_folder(stack, "-v", f"{tmp_path}:/data:ro")
    assert "the photos' folder ./data is on a read-only file system" in said


def test_a_folder_of_someone_else(stack: Stack) -> None:
    said = _check_folder(stack, "--tmpfs", "/data:mode=755")
    assert "cannot be written to by the user 1000:1000: chown -R 1000:1000 ./data" in said


@pytest.mark.parametrize("name", ["rabbitmq", "graphana"])
def test_leaving_out_what_cannot_be_left_out(checkout: Path, name: str) -> None:
    assert f"WITHOUT names {name}" in (said := _refused(checkout, WITHOUT=f"grafana {name}"))
    assert "only monitor, prometheus, grafana can be left out" in said


def test_an_image_that_is_needed_and_cannot_be_pulled(checkout: Path) -> None:
    """Nothing is started, and it is named."""
    file = checkout / "docker-compose.yml"
    file.write_text(file.read_text().replace("image: postgres:", "image: 127.0.0.1:1/postgres:"))
    done = _in(checkout, "up")
    assert done.returncode == 1
    assert "the image 127.0.0.1:1/postgres:17.6-bookworm of postgres is not here and cannot be pulled" in done.stderr
    assert "docs/compose.md" in done.stderr
