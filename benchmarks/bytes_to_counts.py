"""From photos' bytes in memory to their counts, with the worker's own code: decoding alone, the engine alone, and both.

    python -m benchmarks.bytes_to_counts PHOTOS [--photos 1000] [--threads 4] [--batch-size 16] [--rounds 5]

The three measurements alternate. With a GPU, the slower of the two parts is the limit; on a CPU they share the cores,
and the limit is the sum of their times. Photos are repeated if there are too few; a decoded photo takes 0.15 MB of
memory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice

from benchmarks import engines
from binwatch.command_line import run
from binwatch.cores import usable_cores
from binwatch.settings import Settings, load_settings
from worker.engine import Engine
from worker.inference_sessions import CPU_PROVIDER
from worker.photo_inputs import LoadedFile, NamedPhoto, find_photos, make_loader
from worker.pipeline import Prediction, load_ahead, predict
from worker.skipped import SkippedTally


@dataclass(frozen=True)
class Pipeline:
    """The pipeline of `python -m worker count`, with bytes in memory instead of files."""

    engine: Engine
    sources: list[NamedPhoto]
    settings: Settings
    threads: int
    batch_size: int

    def decode(self) -> Iterator[LoadedFile]:
        """All photos, decoded by the threads."""
        load = make_loader(self.engine.card, self.settings.limits)
        with ThreadPoolExecutor(self.threads) as pool:
            yield from load_ahead(pool, self.sources, load, ahead=4 * self.batch_size)

    def count(self, decoded: Iterator[LoadedFile]) -> None:
        """Count all decoded photos."""
        answers = [answer for _, answer in predict(self.engine, decoded, self.batch_size)]
        assert all(isinstance(answer, Prediction) for answer in answers), "a photo could not be counted"
        assert len(answers) == len(self.sources)

    def photos_per_second(self, work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        return len(self.sources) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place", metavar="PHOTOS", help="folder")
    engines.add_options(parser)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="threads for decoding")
    parser.add_argument("--batch-size", type=int, default=Settings.model_fields["batch_size"].default)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    settings = load_settings()
    files = [source.read() for source in find_photos([options.place], settings, SkippedTally())]
    sources = [NamedPhoto("", partial(bytes, data)) for data in islice(cycle(files), options.photos)]
    with engines.bundle(options) as bundle:
        engine = engines.engine(options, bundle, options.batch_size)
        engine.warm_up()
        pipeline = Pipeline(engine, sources, settings, options.threads, options.batch_size)
        decoded = list(pipeline.decode())
        ways = (
            lambda: list(pipeline.decode()),
            lambda: pipeline.count(iter(decoded)),
            lambda: pipeline.count(pipeline.decode()),
        )
        ways[-1]()  # warm-up: the first call allocates
        rounds = [[pipeline.photos_per_second(way) for way in ways] for _ in range(options.rounds)]
        show(pipeline, rounds)


def show(pipeline: Pipeline, rounds: list[list[float]]) -> None:
    """Print the medians, and the limit computed from them."""
    engine = pipeline.engine
    print(f"{len(pipeline.sources)} photos, {usable_cores()} cores, {engine.precision}, {engine.provider};", end=" ")
    print(f"medians of {len(rounds)} rounds (lowest to highest)")
    names = (
        f"decoding alone, {pipeline.threads} threads",
        f"engine alone, batches of {pipeline.batch_size}",
        "both together",
    )
    decoding, counting, both = (statistics.median(column) for column in zip(*rounds, strict=True))
    for name, column in zip(names, zip(*rounds, strict=True), strict=True):
        speeds = f"{statistics.median(column):>10,.1f} photos/s ({min(column):,.1f} to {max(column):,.1f})"
        print(f"{name:<34}{speeds}")
    if engine.provider == CPU_PROVIDER:
        limit = 1 / (1 / decoding + 1 / counting)
        reason = f"one after the other, decoding for {limit / decoding:.0%} of the time"
    else:
        limit, reason = min((decoding, "decoding"), (counting, "the engine"))
    print(f"{'limit':<34}{limit:>10,.1f} photos/s: {reason}; both together reach {both / limit:.1%} of it")


if __name__ == "__main__":
    run(main, "dev")
