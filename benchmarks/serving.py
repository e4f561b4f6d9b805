"""Counting over HTTP: Binwatch's serving container, the machine's limit and LitServe, in one table from one run.

    uv pip install -c requirements.lock -e '.[dev,benchmarks]'      # LitServe; preferably into a separate venv
    python -m benchmarks.serving PHOTOS_FOLDER [--in-flight 16] [--requests 400] [--rounds 3]

Binwatch is the container's entry point, `python -m worker serve`. LitServe uses the same ONNX file, the same function
for decoding, the same maximum batch size and the same maximum wait: once as in its guide, with one worker, and once
tuned, with a worker for each core. Another process sends the photos (benchmarks/load.py). Every second round runs the
ways in reverse order. Each way starts its server, sends some photos to warm it up, and then those that are measured.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.alternatives import link_photos
from benchmarks.cost import ProcessCost
from benchmarks.services import ROOT, photo_files
from binwatch.cores import usable_cores
from binwatch.settings import DEFAULT_MODEL, Settings, process_environment
from testing.services.rabbitmq import free_ports

CORES = usable_cores()
START_TIMEOUT_S = 120
WARM_UP_PHOTOS = 64
BINWATCH, LIMIT, LITSERVE, LITSERVE_TUNED = (
    "Binwatch",
    "limit in memory",
    "LitServe, its guide's way",
    "LitServe, tuned",
)


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """The command that starts a server, its URLs for readiness and for photos, and options of benchmarks.load."""

    command: Sequence[str]
    ready: str
    url: str
    load_options: Sequence[str] = ()
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ServingRun:
    """One run of one way.

    `rate` is in photos/s, `server_s` and `client_s` are processor time per photo, `median_s` and `late_s` (95th
    percentile) are latencies, and `peak` is the server's memory in bytes.
    """

    rate: float
    server_s: float = 0.0
    client_s: float = 0.0
    median_s: float = 0.0
    late_s: float = 0.0
    peak: int = 0
    predicted: Sequence[int] = ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument(
        "--requests", type=int, default=400, help="photos of the folder are repeated if there are fewer"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    options = parser.parse_args()
    if find_spec("litserve") is None:
        sys.exit("LitServe is not installed: uv pip install -c requirements.lock -e '.[dev,benchmarks]'")
    files = photo_files(options.folder)
    runs: dict[str, list[ServingRun]] = {name: [] for name in (LIMIT, BINWATCH, LITSERVE_TUNED, LITSERVE)}
    with tempfile.TemporaryDirectory(prefix="binwatch-photos-") as folder:
        link_photos(files, Path(folder), options.requests)
        for round_index in range(options.rounds):
            for name in list(runs) if round_index % 2 == 0 else reversed(list(runs)):
                runs[name].append(run_way(name, folder, options))
                print(f"round {round_index + 1}: {name}: {runs[name][-1].rate:.1f} photos/s", file=sys.stderr)
    show(runs, options)


def run_way(name: str, folder: str, options: argparse.Namespace) -> ServingRun:
    """Run one way."""
    if name == LIMIT:
        report = _run_module(["benchmarks.ways.limit", folder, "--model", str(options.model.absolute())])
        return ServingRun(report["steady_photos"] / report["steady_s"])
    server = _servers(options.model)[name]
    with running(server) as process:
        load = ["benchmarks.load", server.url, folder, "--in-flight", str(options.in_flight), *server.load_options]
        _run_module([*load, "--requests", str(WARM_UP_PHOTOS)])
        cost = ProcessCost(process)
        report = _run_module([*load, "--requests", str(options.requests)])
        server_s, peak = cost.total()
    return ServingRun(
        report["photos"] / report["seconds"],
        server_s / report["photos"],
        report["processor_s"] / report["photos"],
        report["median_s"],
        report["late_s"],
        peak,
        report["predicted"],
    )


def _servers(model: Path) -> dict[str, ServerCommand]:
    (port,) = free_ports(1)
    base = f"http://127.0.0.1:{port}"
    settings = Settings(serve_host="127.0.0.1", serve_port=port, model_dir=model.absolute())
    litserve = ["benchmarks.ways.lit_serve", "--port", str(port), "--model", str(model.absolute())]
    tuned = ["--workers", str(CORES), "--threads", "1"]
    return {
        BINWATCH: ServerCommand(
            ["worker", "serve"], f"{base}/ping", f"{base}/invocations", (), process_environment(settings)
        ),
        LITSERVE: ServerCommand(litserve, f"{base}/health", f"{base}/predict", ["--base64"]),
        LITSERVE_TUNED: ServerCommand([*litserve, *tuned], f"{base}/health", f"{base}/predict", ["--base64"]),
    }


@contextmanager
def running(server: ServerCommand) -> Iterator[int]:
    """Run a server within the context, and yield its process id once it is ready."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *server.command],
            cwd=ROOT,
            env=server.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            if not _ready(server.ready, process):
                log.seek(0)
                sys.exit(f"{' '.join(server.command)} does not answer {server.ready}:\n{log.read()}")
            yield process.pid
        finally:
            _end(process)


def _ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
            if response.status == 200:
                return True
        time.sleep(0.1)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the process group, and then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)


def _run_module(module: Sequence[str]) -> dict[str, object]:
    """Run a module. Returns the last line of its output, parsed as JSON."""
    result = subprocess.run([sys.executable, "-m", *module], cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"python -m {' '.join(module)} failed:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])


def show(runs: Mapping[str, list[ServingRun]], options: argparse.Namespace) -> None:
    settings = Settings()
    print(
        f"{options.requests} photos, {options.in_flight} in flight, {CORES} cores, medians of {options.rounds} rounds;"
        f" batches of at most {settings.batch_size} that wait at most {settings.serve_batch_wait_ms:g} ms"
    )
    print(f"{'':<58}{'answer after, ms':>20}{'ms of CPU a photo':>19}")
    print(f"{'':<28}{'photos/s':>9}{'':21}{'median':>11}{'95 %':>9}{'server':>12}{'client':>7}{'peak MB':>9}")
    for name, rounds in runs.items():
        rates = [run.rate for run in rounds]
        spread = f"({min(rates):.1f} to {max(rates):.1f})"
        line = f"{name:<28}{statistics.median(rates):9.1f} {spread:<20}"
        if name != LIMIT:
            fields = ("median_s", "late_s", "server_s", "client_s")
            values = [1000 * statistics.median(getattr(run, field) for run in rounds) for field in fields]
            line += "{:11.0f}{:9.0f}{:12.1f}{:7.1f}".format(*values) + f"{max(run.peak for run in rounds) / 1e6:9.0f}"
        print(line.rstrip())
    print("Binwatch is as fast as, in each round:")
    for name in (LIMIT, LITSERVE_TUNED, LITSERVE):
        ratios = [ours.rate / other.rate for ours, other in zip(runs[BINWATCH], runs[name], strict=True)]
        print(f"  {name:<28}{statistics.median(ratios):.2f} × ({min(ratios):.2f} to {max(ratios):.2f})")
    counts = {name: run.predicted for name in runs if name != LIMIT for run in runs[name]}
    if len({tuple(each) for each in counts.values()}) > 1:
        sys.exit("the servers' counts differ, so they do different work: the figures cannot be compared")


if __name__ == "__main__":
    main()
