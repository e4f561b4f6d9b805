"""How many decoded photos the engine counts in a second, by batch size: on a GPU with fp16, on a CPU with int8.

    python -m benchmarks.engine_speed [--model BUNDLE] [--provider cuda] [--batch-sizes 16 64 256] [--seconds 5]

The bundle needs the fp16 variant for a GPU (`python -m trainer export` writes it). Photos are those of samples/,
decoded before, and repeated; copying them to the GPU and the answers back is part of it.
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from binwatch.bundle import Bundle
from binwatch.command_line import run
from binwatch.image import load
from binwatch.settings import DEFAULT_MODEL, PrecisionChoice, Provider
from worker.engine import Engine

SAMPLES = Path(__file__).parents[1] / "samples" / "bin-images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--provider", type=Provider, default=Provider.AUTO)
    parser.add_argument("--precision", type=PrecisionChoice, default=PrecisionChoice.AUTO)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=5, help="for each batch size")
    options = parser.parse_args()
    bundle = Bundle(options.model)
    quality = bundle.card.jpeg_quality
    photos = [load(file.read_bytes(), jpeg_quality=quality).pixels for file in sorted(SAMPLES.glob("*.jpg"))]
    for size in options.batch_sizes:
        engine = Engine(bundle, provider=options.provider, precision=options.precision, batch_size=size)
        engine.warm()
        rate = photos_per_second(engine, np.stack(list(islice(cycle(photos), size))), options.seconds)
        where = f"{engine.precision}, {engine.provider}, {len(os.sched_getaffinity(0))} cores"
        print(f"batches of {size:>4}: {rate:8.1f} photos/s ({where})")


def photos_per_second(engine: Engine, batch: np.ndarray, seconds: float) -> float:
    """Count the batch again and again for so long, one call after the other."""
    calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        engine.infer(batch)
        calls += 1
    return calls * len(batch) / (time.perf_counter() - began)


if __name__ == "__main__":
    run(main)
