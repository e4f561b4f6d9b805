"""Duration of an engine's start, and the effect of warm-up on the first photos. Each start is a new process.

    python -m benchmarks.engine_start [--batch-size 64] [--rounds 3]
    python -m benchmarks.engine_start --architecture resnet50 --provider cuda --batch-size 64

Half of the starts warm up the engine, as workers do. Then each counts two full batches, one photo, and a full batch
again: on CUDA, a batch must take no longer after a change of batch size than without one.
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
    """Durations of the parts of one start."""

    engine: str = ""
    milliseconds: dict[str, float] = field(default_factory=dict)

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        self.milliseconds[name] = (time.perf_counter() - began) * 1000
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    engines.add_options(parser)
    parser.add_argument("--batch-size", type=int, default=Settings.model_fields["batch_size"].default)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with engines.bundle(options) as bundle:
        rounds = [
            [_in_new_process(options, bundle, warm=warm) for warm in (True, False)] for _ in range(options.rounds)
        ]
    warmed, cold = zip(*rounds, strict=True)
    print(f"{warmed[0].engine}, batches of {options.batch_size}, {usable_cores()} cores;", end=" ")
    print(f"medians of {options.rounds} starts, ms (lowest to highest)")
    show("warmed", warmed)
    show("not warmed", cold)


def start(options: argparse.Namespace, bundle: Bundle, *, warm: bool) -> Start:
    """Load the engine, warm it up if `warm`, and count."""
    result = Start()
    full, single = (engines.batch(size, bundle.card.input_size) for size in (options.batch_size, 1))
    engine = result.timed("load", lambda: engines.engine(options, bundle, options.batch_size))
    result.engine = f"{engine.precision}, {engine.provider}"
    if warm:
        result.timed(f"warm {', '.join(map(str, engine.batch_sizes))}", engine.warm_up)
    batches = {"first batch": full, "second batch": full, "one photo": single, "third batch": full}
    for name, batch in batches.items():
        result.timed(name, lambda photos=batch: engine.infer(photos))
    return result


def show(name: str, starts: Sequence[Start]) -> None:
    """Print the medians."""
    print(name)
    for part in starts[0].milliseconds:
        column = [each.milliseconds[part] for each in starts]
        print(f"  {part:<24}{statistics.median(column):>10,.1f} ({min(column):,.1f} to {max(column):,.1f})")


def _in_new_process(options: argparse.Namespace, bundle: Bundle, *, warm: bool) -> Start:
    """Call `start` in a new process, in which neither CUDA nor a memory arena is initialised."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(start, options, bundle, warm=warm).result()


if __name__ == "__main__":
    run(main, "dev")
