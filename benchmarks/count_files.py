"""How close `python -m worker count` comes to the machine's limit on the same photos and the same ONNX file.

The limit: the photos' bytes are in memory; all are decoded on every core, then all are inferred; both times are added.
The command: a process of its own, from start to end, photos on disk. Rounds alternate and medians are compared,
since other work on the machine disturbs both alike.

    python benchmarks/count_files.py PHOTOS_FOLDER [--model samples/model] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from binwatch.bundle import Bundle
from binwatch.cores import cores
from binwatch.keys import ObjectKind, kind_of
from binwatch.settings import DEFAULT_MODEL, Settings
from worker.engine import Engine


def limit(engine: Engine, photos: list[bytes], batch: int) -> tuple[float, float]:
    """Seconds to decode all photos, and seconds to infer all of them, from memory to memory."""
    started = time.perf_counter()
    with ThreadPoolExecutor(cores()) as pool:
        decode = engine.card.load_photo
        pixels = np.stack([photo.pixels for photo in pool.map(decode, photos)])
    decoded = time.perf_counter()
    # Two calls at a time: with one, every core waits for the slowest at the end of each batch.
    with ThreadPoolExecutor(2) as calls:
        list(calls.map(engine.infer, [pixels[start : start + batch] for start in range(0, len(pixels), batch)]))
    return decoded - started, time.perf_counter() - decoded


def command(folder: Path, model: Path, expected: int) -> float:
    """Seconds that the command takes on `folder`, its start included."""
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-m", "worker", "count", str(folder), "--json", "--model", str(model)],
        check=True,
        capture_output=True,
    )
    seconds = time.perf_counter() - started
    counted = len(json.loads(result.stdout))
    if counted != expected:
        sys.exit(f"the command counted {counted} photos of {expected}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    files = sorted(path for path in options.folder.rglob("*") if kind_of(path.name) is ObjectKind.PHOTO)
    photos = [path.read_bytes() for path in files]
    engine = Engine(Bundle(options.model))
    batch = Settings.model_fields["batch_size"].default
    limit(engine, photos, batch)  # warm-up: the first call allocates
    rounds = [
        (
            *limit(engine, photos, batch),
            command(options.folder, options.model, len(photos)),
            command(files[0], options.model, 1),
        )
        for _ in range(options.rounds)
    ]
    show(engine, len(photos), *(statistics.median(column) for column in zip(*rounds, strict=True)))


def show(engine: Engine, photos: int, decode: float, infer: float, whole: float, start: float) -> None:
    """Print the table; times in seconds."""
    both = decode + infer
    print(f"{photos} photos, {cores()} cores, {engine.precision}, {engine.provider}, medians")
    for name, seconds in (
        ("decode in memory", decode),
        ("infer in memory", infer),
        ("limit: both, one after the other", both),
        ("command, its start included", whole),
    ):
        print(f"{name:<34}{seconds:7.2f} s  {photos / seconds:7.1f} photos/s")
    print(f"{'command on one photo':<34}{start:7.2f} s")
    print(f"the command reaches {both / whole:.1%} of the limit")


if __name__ == "__main__":
    main()
