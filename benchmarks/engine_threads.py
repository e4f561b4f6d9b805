"""Two ways to use a CPU's cores for one batch: all in one ONNX Runtime call, or a separate call for each.

    python -m benchmarks.engine_threads [--model samples/model] [--threads 4] [--rounds 9]

The two alternate on the same batches, so that other load on the machine affects both. Processor time hardly depends on
other load.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from binwatch.bundle import INPUT_NAME, Bundle, Precision
from binwatch.cores import usable_cores
from binwatch.onnx_session import open_session
from binwatch.settings import DEFAULT_MODEL, Settings

SAMPLES = Path(__file__).parents[1] / "samples" / "bin-images"
BATCHES_PER_ROUND = 4

Batch = npt.NDArray[np.uint8]


class Together:
    """One call that uses all threads."""

    def __init__(self, model: Path, threads: int) -> None:
        self._session = open_session(model, threads=threads, spin=False)

    def __call__(self, batch: Batch) -> None:
        self._session.run(None, {INPUT_NAME: batch})


class SideBySide:
    """A call for each thread, on its part of the batch, as in worker.inference_sessions."""

    def __init__(self, model: Path, threads: int) -> None:
        self._session = open_session(model, spin=False)
        self._pool = ThreadPoolExecutor(threads)
        self._threads = threads

    def __call__(self, batch: Batch) -> None:
        parts = np.array_split(batch, self._threads)
        list(self._pool.map(lambda part: self._session.run(None, {INPUT_NAME: part}), parts))


def measure(way: Together | SideBySide, batches: list[Batch]) -> tuple[float, float]:
    """Photos per second, and milliseconds of processor time for each photo."""
    wall, processor = time.perf_counter(), time.process_time()
    for batch in batches:
        way(batch)
    photos = sum(map(len, batches))
    return photos / (time.perf_counter() - wall), 1000 * (time.process_time() - processor) / photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--precision", type=Precision, default=Precision.INT8)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--batch-size", type=int, default=Settings.model_fields["batch_size"].default)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    bundle = Bundle(options.model)
    model = bundle.model_path(options.precision)
    photos = [bundle.card.load_photo(file.read_bytes()).pixels for file in sorted(SAMPLES.glob("*.jpg"))]
    batches = [np.stack(photos[: options.batch_size])] * BATCHES_PER_ROUND
    ways = {"one call, all threads": Together, "a call for each thread": SideBySide}
    instances = {name: way(model, options.threads) for name, way in ways.items()}
    for way in instances.values():
        measure(way, batches[:1])  # warm-up: the first call allocates
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in instances}
    for _ in range(options.rounds):
        for name, way in instances.items():
            results[name].append(measure(way, batches))
    print(
        f"{options.threads} threads, batches of {options.batch_size}, {options.precision}, medians of {options.rounds}"
    )
    for name, rounds in results.items():
        rate, cost = (statistics.median(column) for column in zip(*rounds, strict=True))
        low, high = (pick(rate for rate, _ in rounds) for pick in (min, max))
        print(f"{name:<24}{rate:7.1f} photos/s ({low:.1f} to {high:.1f}) {cost:6.1f} ms of processor time a photo")


if __name__ == "__main__":
    main()
