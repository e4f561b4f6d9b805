"""Speed of `binwatch worker count` relative to the machine's limit with the same photos and the same ONNX file, and the
additional time of `binwatch check`.

The limit: the photos' bytes are in memory; all are decoded on every core, then all are inferred; the two times are
added. The commands: each runs in a new process, from start to end, with photos on disk. `check` has no records, and
writes an XLSX with thumbnails. The measurements alternate and medians are compared, so that other load on the machine
affects all of them. Processor time is that of a command on all cores; other load changes it far less than wall time.

    python benchmarks/count_files.py PHOTOS_FOLDER [--model samples/model] [--rounds 5]
    python benchmarks/count_files.py PHOTOS_FOLDER --metadata FOLDER --no-limit
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from binwatch.bundle import Bundle
from binwatch.cores import usable_cores
from binwatch.keys import ObjectKind, kind_of
from binwatch.metadata import expected_quantity
from binwatch.settings import DEFAULT_MODEL, Settings
from worker.engine import Engine


def limit(engine: Engine, photos: list[bytes], batch: int) -> tuple[float, float]:
    """Seconds to decode all photos, and seconds to infer all of them, from memory to memory."""
    started = time.perf_counter()
    with ThreadPoolExecutor(usable_cores()) as pool:
        decode = engine.card.load_photo
        pixels = np.stack([photo.pixels for photo in pool.map(decode, photos)])
    decoded = time.perf_counter()
    # Two concurrent calls: with one, every core would wait for the slowest at the end of each batch.
    with ThreadPoolExecutor(2) as calls:
        list(calls.map(engine.infer, [pixels[start : start + batch] for start in range(0, len(pixels), batch)]))
    return decoded - started, time.perf_counter() - decoded


class CommandCost(NamedTuple):
    """Wall time and processor time of a command in seconds, including its start."""

    wall: float
    processor: float


def run(*command: str) -> tuple[CommandCost, str]:
    """Run a command of `binwatch`. Returns its cost and its output."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([sys.executable, "-m", "binwatch", *command], check=True, capture_output=True, text=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return CommandCost(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime), result.stdout


def count_cost(folder: Path, model: Path, expected: int) -> CommandCost:
    """Cost of `binwatch worker count`. Exits if it did not count `expected` photos."""
    cost, output = run("worker", "count", str(folder), "--json", "--model", str(model))
    counted = len(json.loads(output))
    if counted != expected:
        sys.exit(f"the command counted {counted} photos of {expected}")
    return cost


def check_cost(folder: Path, model: Path, expected: int, metadata: Path) -> CommandCost:
    """Cost of `binwatch check` without records. Exits if it did not count `expected` photos."""
    with tempfile.TemporaryDirectory(prefix="binwatch-check-") as name:
        inventory = Path(name, "stock.csv")
        with inventory.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("bin", "quantity"))
            writer.writerows(
                (path.stem, expected_quantity(path.read_bytes())) for path in sorted(metadata.glob("*.json"))
            )
        files = ("--expected", str(inventory), "--out", str(Path(name, "wrong.xlsx")))
        cost, output = run("check", str(folder), *files, "--model", str(model))
    if f": {expected} counted now " not in output:
        sys.exit(f"the command did not count {expected} photos:\n{output}")
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--metadata", type=Path, help="folder of metadata JSON: measure `binwatch check`, too")
    parser.add_argument("--no-limit", action="store_true", help="measure the commands alone")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    files = sorted(path for path in options.folder.rglob("*") if kind_of(path.name) is ObjectKind.PHOTO)
    photos = [path.read_bytes() for path in files]
    engine = Engine(Bundle(options.model))
    batch = Settings.model_fields["batch_size"].default
    if not options.no_limit:
        limit(engine, photos, batch)  # warm-up: the first call allocates
    limits, counts, checks, starts = [], [], [], []
    for _ in range(options.rounds):
        if not options.no_limit:
            limits.append(limit(engine, photos, batch))
        counts.append(count_cost(options.folder, options.model, len(photos)))
        if options.metadata:
            checks.append(check_cost(options.folder, options.model, len(photos), options.metadata))
        starts.append(count_cost(files[0], options.model, 1))
    print(
        f"{len(photos)} photos, {usable_cores()} cores, {engine.precision}, {engine.provider}, medians of"
        f" {options.rounds}"
    )
    for name, costs in (("count", counts), ("check", checks), ("count, one photo", starts)):
        if costs:
            wall, processor = _medians(costs)
            print(f"{name:<34}{wall:7.2f} s  {processor:7.2f} s of processor time")
    if limits:
        _show_limit(len(photos), *_medians(limits), _medians(counts)[0])
    if checks:
        _show_ratios(counts, checks)


def _medians(rounds: Sequence[tuple[float, float]]) -> tuple[float, float]:
    first, second = zip(*rounds, strict=True)
    return statistics.median(first), statistics.median(second)


def _show_limit(photos: int, decode_s: float, infer_s: float, count_s: float) -> None:
    limit_s = decode_s + infer_s
    for name, seconds in (
        ("decode in memory", decode_s),
        ("infer in memory", infer_s),
        ("limit: both, one after the other", limit_s),
        ("count", count_s),
    ):
        print(f"{name:<34}{seconds:7.2f} s  {photos / seconds:7.1f} photos/s")
    print(f"count reaches {limit_s / count_s:.1%} of the limit")


def _show_ratios(counts: Sequence[CommandCost], checks: Sequence[CommandCost]) -> None:
    """Print the ratios within each round, whose two commands ran one after the other."""
    for name, index in (("wall time", 0), ("processor time", 1)):
        ratios = sorted(check[index] / count[index] for check, count in zip(checks, counts, strict=True))
        median = statistics.median(ratios)
        print(f"check takes {median:.2f} × the {name} of count ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
