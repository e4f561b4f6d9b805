"""How long an engine takes to start, and how warming changes the time of the first photos. Each start is a new process.

    python -m benchmarks.engine_start [--batch-size 64] [--rounds 3]
    python -m benchmarks.engine_start --architecture resnet50 --provider cuda --batch-size 64

Half of the starts warm the engine, as workers do. Then each counts two full batches, one photo, and a full batch again:
on CUDA, a batch must take no longer after a change of size than without one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from benchmarks import engines
from binwatch.bundle import Bundle
from binwatch.command_line import run
from binwatch.cores import usable_cores
from binwatch.settings import Settings


@dataclass
class Start:
    """Durations of the parts of one start in milliseconds, in order."""

    engine: str = ""
    took: dict[str, float] = field(default_factory=dict)

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = work()
        self.took[name] = (time.perf_counter() - began) * 1000
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    engines.add_options(parser)
    parser.add_argument("--batch-size", type=int, default=Settings.model_fields["batch_size"].default)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with engines.bundle(options) as bundle:
        rounds = [[_elsewhere(options, bundle, warm=warm) for warm in (True, False)] for _ in range(options.rounds)]
    warmed, cold = zip(*rounds, strict=True)
    print(f"{warmed[0].engine}, batches of {options.batch_size}, {usable_cores()} cores;", end=" ")
    print(f"medians of {options.rounds} starts, ms (lowest to highest)")
    show("warmed", warmed)
    show("not warmed", cold)


def start(options: argparse.Namespace, bundle: Bundle, *, warm: bool) -> Start:
    """Load, warm if wanted, and count, in a new process."""
    found = Start()
    full, one = (engines.batch(size, bundle.card.input_size) for size in (options.batch_size, 1))
    engine = found.timed("load", lambda: engines.engine(options, bundle, options.batch_size))
    found.engine = f"{engine.precision}, {engine.provider}"
    if warm:
        found.timed(f"warm {', '.join(map(str, engine.batch_sizes))}", engine.warm_up)
    batches = {"first batch": full, "second batch": full, "one photo": one, "third batch": full}
    for name, batch in batches.items():
        found.timed(name, lambda photos=batch: engine.infer(photos))
    return found


def show(name: str, starts: Sequence[Start]) -> None:
    """Print the medians."""
    print(name)
    for part in starts[0].took:
        column = [each.took[part] for each in starts]
        print(f"  {part:<24}{statistics.median(column):>10,.1f} ({min(column):,.1f} to {max(column):,.1f})")


def _elsewhere(options: argparse.Namespace, bundle: Bundle, *, warm: bool) -> Start:
    """One start in a new process, so that neither CUDA nor a memory arena is initialised."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(start, options, bundle, warm=warm).result()


if __name__ == "__main__":
    run(main, "dev")
