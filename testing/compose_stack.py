"""All services of docker-compose.yml except Grafana, as a project with its own ports, data, volumes and images."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config

from testing import waiting

ROOT = Path(__file__).parents[1]
SERVERS = ("postgres", "rabbitmq", "s3", "worker", "beat", "monitor", "prometheus")
ONE_SHOT_SERVICES = ("folder", "migrate", "roles", "setup", "bucket", "catch-up")
OWN_SERVICES = ("worker", "beat", "monitor")
BUCKET = "binwatch"
wait_until = partial(waiting.wait_until, interval_s=0.5)
"""Polls less often than the default, because each check runs a docker command."""


class Stack:
    """A Compose project. It works with both `docker compose` and `docker-compose`."""

    def __init__(self, name: str, folder: Path, ports: dict[str, int]) -> None:
        self.name = name
        self.folder = folder
        self.data = folder / "data"
        self.settings = {
            "POSTGRES_PASSWORD": "postgres1",
            "RABBITMQ_PASSWORD": "rabbitmq1",
            "S3_ACCESS_KEY": "tests",
            "S3_SECRET_KEY": "secret1",
            "POSTGRES_WORKER_PASSWORD": "worker1",
            "POSTGRES_MONITOR_PASSWORD": "monitor1",
            "S3_WORKER_ACCESS_KEY": "tests-worker",
            "S3_WORKER_SECRET_KEY": "worker2",
            "S3_MONITOR_SECRET_KEY": "monitor2",
            "GRAFANA_PASSWORD": "grafana1",
            "BINWATCH_MONITOR_TOKEN": "a token of the tests",
            "DATA_DIR": str(self.data),
            "DATA_UID": str(os.getuid() or 1000),
            "DATA_GID": str(os.getgid() or 1000),
            "BINWATCH_VERSION": "test",
            "BINWATCH_SAGEMAKER_ROLE": "arn:aws:iam::123456789012:role/tests",
            # Within seconds instead of minutes, reconcile then finds photos whose events were lost in an outage.
            "BINWATCH_RECONCILE_MINUTES": "0.1",
            "BINWATCH_RECONCILE_GRACE_S": "5",
        } | {name: str(port) for name, port in ports.items()}
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))

    def compose(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Docker Compose and capture its output. With `check`, a failure raises AssertionError with the output."""
        options = ["-p", self.name, "--env-file", str(self.folder / ".env")]
        return run([str(ROOT / "deploy/compose/compose"), *options, *arguments], check=check, **environment)

    def up(self, *arguments: str) -> None:
        """Start the services that are not running, and wait until all are healthy and one-shot commands have ended."""
        self.compose("up", "-d", *arguments, *SERVERS, "catch-up")
        wait_until(self.healthy, lambda: f"not healthy: {self.states()}\n{self.logs()}")

    def healthy(self) -> bool:
        """Whether every server is healthy and every one-shot command has succeeded."""
        states = self.states()
        return all(states.get(name) == {"healthy"} for name in SERVERS) and all(
            states.get(name) == {"exited 0"} for name in ONE_SHOT_SERVICES
        )

    def states(self) -> dict[str, set[str]]:
        """Service → states of its containers: healthy, starting, exited 1, …"""
        states: dict[str, set[str]] = {}
        for container in self.containers():
            state = container["State"]
            text = f"exited {state['ExitCode']}" if state["Status"] == "exited" else state["Status"]
            health = state.get("Health", {}).get("Status")
            name = container["Config"]["Labels"]["com.docker.compose.service"]
            states.setdefault(name, set()).add(health if state["Status"] == "running" and health else text)
        return states

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        """The output of `docker inspect` for the containers of the project, or of one service."""
        filters = ["--filter", f"label=com.docker.compose.project={self.name}"]
        filters += ["--filter", f"label=com.docker.compose.service={service}"] if service else []
        ids = docker("ps", "-aq", *filters).split()
        # A container may have been removed since it was listed, such as that of `compose run --rm`.
        inspected = run(["docker", "inspect", *ids], check=False).stdout if ids else "[]"
        containers: list[dict[str, Any]] = json.loads(inspected)
        return [each for each in containers if each["Config"]["Labels"].get("com.docker.compose.oneoff") != "True"]

    def container(self, service: str) -> dict[str, Any]:
        """The output of `docker inspect` for the only container of a service."""
        (container,) = self.containers(service)
        return container

    def logs(self) -> str:
        """The last log lines of every container."""
        return self.compose("logs", "--no-color", "--tail", "15", check=False).stdout

    def sql(self, query: str) -> list[list[str]]:
        """Rows of a query on the records; empty while the database is unavailable."""
        container = self.container("postgres")["Id"]
        psql = ["psql", "-U", "binwatch", "-d", "binwatch", "-AtF", "\t", "-c", query]
        answer = run(["docker", "exec", container, *psql], check=False)
        return [line.split("\t") for line in answer.stdout.splitlines()]

    def counts(self) -> dict[tuple[str, str], int]:
        """(key, ETag) → number of counts recorded for it."""
        rows = self.sql("SELECT key, etag, count(*) FROM counts WHERE reason IS NULL GROUP BY 1, 2")
        return {(key, etag): int(count) for key, etag, count in rows}

    def url(self, service: str) -> str:
        """Address of a service's port on this machine."""
        return f"http://127.0.0.1:{self.settings[f'{service.upper()}_PORT']}"

    def s3(self, access: str | None = None, secret: str | None = None) -> Any:
        """A boto3 client, by default with the root credentials. It retries, so that it survives a restart of S3."""
        return boto3.client(
            "s3",
            endpoint_url=self.url("s3"),
            region_name="us-east-1",
            aws_access_key_id=access or self.settings["S3_ACCESS_KEY"],
            aws_secret_access_key=secret or self.settings["S3_SECRET_KEY"],
            config=Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "max_attempts": 2}),
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query to Prometheus. Fails the test if Prometheus rejects the query."""
        answer = httpx.get(self.url("prometheus") + "/api/v1/query", params={"query": expression}, timeout=10).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        samples: list[dict[str, Any]] = answer["data"]["result"]
        return samples

    def crash(self, service: str) -> None:
        """Kill all processes from inside the container, because Docker does not restart it after `docker kill`."""
        run(["docker", "exec", self.container(service)["Id"], "sh", "-c", "kill -9 -1"], check=False)


def docker(*arguments: str) -> str:
    """Output of a docker command."""
    return run(["docker", *arguments]).stdout


def run(command: list[str], *, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with `environment` and only PATH, HOME and DOCKER_* of this process's environment."""
    inherited = {
        name: value for name, value in os.environ.items() if name in ("PATH", "HOME") or name.startswith("DOCKER_")
    }
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=1500,
        check=False,
    )
    assert not check or result.returncode == 0, f"{' '.join(command)}: {result.stdout[-4000:]}\n{result.stderr[-6000:]}"
    return result


@contextmanager
def print_state_on_failure(stack: Stack) -> Iterator[None]:
    """Print the states and the last log lines of the containers if the block raises."""
    try:
        yield
    except BaseException:
        print(stack.states(), stack.logs(), sep="\n")
        raise
