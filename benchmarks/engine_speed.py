"""Speed of the engine on decoded photos by batch size, compared with PyTorch and the same network.

    python -m benchmarks.engine_speed [--batch-sizes 1 16 64] [--seconds 2] [--rounds 5]
    python -m benchmarks.engine_speed --torch --beside OTHER_BUNDLE
    python -m benchmarks.engine_speed --architecture resnet50 --provider cuda --batch-sizes 1 16 64 256

The ways alternate, so that other load on the machine affects all of them. Each is timed from photos in memory to
outputs in memory, including the copies to and from a GPU. As in the worker, two batches are processed at a time, except
with PyTorch on a CPU, whose threads share one batch.

A bundle needs the fp16 variant for a GPU (`python -m trainer export`).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import engines
from binwatch.bundle import Bundle
from binwatch.command_line import run
from binwatch.cores import usable_cores
from worker.engine import Engine

CONCURRENT_BATCHES = 2
WARM_UP_CALLS = 3  # they allocate, compile and plan


@dataclass(frozen=True, slots=True)
class Way:
    """A way to count a batch of photos, and the number of batches that it processes at a time."""

    name: str
    count: Callable[[engines.Pixels], Any]
    batch: engines.Pixels
    concurrent_batches: int = CONCURRENT_BATCHES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    engines.add_options(parser)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=2, help="duration of each way in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch", nargs="*", choices=["eager", "compiled"], default=["eager", "compiled"])
    parser.add_argument("--compile-mode", default="default", help="mode of torch.compile, such as max-autotune")
    parser.add_argument("--beside", type=Path, nargs="*", default=[], metavar="MODEL", help="other bundles' folders")
    options = parser.parse_args()
    with engines.bundle(options) as bundle:
        for size in options.batch_sizes:
            built = [engines.engine(options, each, size) for each in (bundle, *map(Bundle, options.beside))]
            print(f"batches of {size}, {built[0].provider}, {usable_cores()} cores;", end=" ")
            print(f"medians of {options.rounds} rounds (lowest to highest)", flush=True)
            batch = engines.batch(size, bundle.card.input_size)
            ways = [*(onnx_way(engine, size) for engine in built), *torch_ways(built[0], batch, options)]
            measure(ways, options)


def onnx_way(engine: Engine, size: int) -> Way:
    """Counting with the engine, as the worker does. Warms it up."""
    engine.warm_up()
    batch = engines.batch(size, engine.card.input_size)
    return Way(f"{engine.card.version} {engine.precision}", engine.infer, batch)


def torch_ways(engine: Engine, batch: engines.Pixels, options: argparse.Namespace) -> list[Way]:
    """Counting with PyTorch, eager and compiled, on the engine's device."""
    if not options.torch:
        return []
    from benchmarks.ways.torch_engine import TorchEngine  # requires PyTorch

    built = {kind: TorchEngine(engine, options.compile_mode if kind == "compiled" else None) for kind in options.torch}
    return [
        Way(
            f"PyTorch {kind}, {'fp16' if way.half else 'fp32'}",
            way.infer,
            batch,
            CONCURRENT_BATCHES if way.on_gpu else 1,
        )
        for kind, way in built.items()
    ]


def measure(ways: list[Way], options: argparse.Namespace) -> None:
    """Alternate between the ways. Print the speed of each, and how many times as fast the first way is."""
    working = [way for way in ways if _works(way)]
    rounds = [[photos_per_second(way, options.seconds) for way in working] for _ in range(options.rounds)]
    for index, way in enumerate(working):
        rates, ratios = [row[index] for row in rounds], [row[0] / row[index] for row in rounds]
        line = f"  {way.name:<24}{statistics.median(rates):>10,.1f} photos/s ({min(rates):,.1f} to {max(rates):,.1f})"
        comparison = (
            f"; the first is {statistics.median(ratios):.2f} × as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        )
        print(line + (comparison if index else ""), flush=True)


def _works(way: Way) -> bool:
    """Warm up a way, and return whether it works on this machine: compilation needs a compiler."""
    try:
        for _ in range(WARM_UP_CALLS):
            way.count(way.batch)
    except Exception as error:
        print(f"  {way.name}: {str(error).strip().splitlines()[0]}", file=sys.stderr)
        return False
    return True


def photos_per_second(way: Way, seconds: float) -> float:
    """Speed of counting the way's batch repeatedly for `seconds`."""
    began = time.perf_counter()

    def count_repeatedly(_: int) -> int:
        calls = 0
        while time.perf_counter() - began < seconds:
            way.count(way.batch)
            calls += 1
        return calls

    with ThreadPoolExecutor(way.concurrent_batches) as pool:
        calls = sum(pool.map(count_repeatedly, range(way.concurrent_batches)))
    return calls * len(way.batch) / (time.perf_counter() - began)


if __name__ == "__main__":
    run(main, "dev")
