"""Runs a real Prometheus, from Debian's package, that scrapes the targets of a test."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from testing.services.postgres import require_service

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "prometheus"
START_S = 60

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}/recording.yml", "{rules}/alerts.yml"]
scrape_configs:
  - job_name: binwatch-monitor
    file_sd_configs: [{{files: ["{folder}/binwatch-monitor.json"], refresh_interval: 1s}}]
  - job_name: binwatch-worker
    file_sd_configs: [{{files: ["{folder}/binwatch-worker.json"], refresh_interval: 1s}}]
"""


def program(name: str) -> str:
    """Return the path of a program of the package; skip the test if it is missing, or fail in CI."""
    path = shutil.which(name)
    if path is None:
        require_service(name, "on Debian: apt-get install prometheus")
    assert path is not None
    return path


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus server."""

    client: httpx.Client
    folder: Path

    def find(self, job: str, *addresses: str) -> None:
        """Replace the targets (host:port) of a job."""
        partial = self.folder / f"{job}.partial"
        partial.write_text(json.dumps([{"targets": addresses}]), encoding="ascii")
        partial.replace(self.folder / f"{job}.json")

    def raised(self, alert: str) -> list[dict[str, str]]:
        """Return the labels of the pending and firing alerts with this name."""
        return [sample["metric"] for sample in self.query(f'ALERTS{{alertname="{alert}"}}')]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query as in Prometheus' response. An invalid query fails the test."""
        answer = self.client.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def value(self, expression: str) -> float | None:
        """Return the value of a query's only sample, or None if there is none."""
        samples = self.query(expression)
        assert len(samples) <= 1, samples
        return float(samples[0]["value"][1]) if samples else None


@contextmanager
def running_prometheus(folder: Path, *, monitor: str, workers: Sequence[str]) -> Iterator[Prometheus]:
    """Run Prometheus with Binwatch's rules, scraping these addresses (host:port) every second, until the block ends."""
    executable = program("prometheus")
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(rules=DEPLOY, folder=folder), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [executable, *arguments, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                prometheus = Prometheus(client, folder)
                prometheus.find("binwatch-monitor", monitor)
                prometheus.find("binwatch-worker", *workers)
                _wait(client, server, folder / "log")
                yield prometheus
        finally:
            server.terminate()
            server.wait(30)


def _wait(client: httpx.Client, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            if client.get("/-/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(log.read_text(encoding="utf-8"))
        time.sleep(0.05)  # polling interval
