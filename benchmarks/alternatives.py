"""Comparison of Binwatch with other ways to count the same photos on the same machine, in one table from one run.

    uv pip install -c requirements.lock -e '.[dev,benchmarks]'      # Ray, PyTorch; preferably into a separate venv
    python -m benchmarks.alternatives PHOTOS_FOLDER [--photos 600] [--rounds 3]
    python -m benchmarks.alternatives PHOTOS_FOLDER --tune-ray

Photos are files, and counts stay in memory, because all ways support this: Binwatch does the same as `python -m worker
count`. Ray Data and the limit use the same ONNX file and the same function for decoding. Each way is implemented by a
file in benchmarks/ways/ and runs in its own process. Odd rounds run the ways in order and even rounds in reverse, with
the files in the page cache.

`--tune-ray` measures Ray Data with several numbers of actors, threads and photos per batch; `--ray` sets those of the
table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path

from benchmarks.cost import ProcessCost
from benchmarks.services import ROOT, photo_files
from binwatch.cores import usable_cores
from binwatch.settings import DEFAULT_MODEL

CORES = usable_cores()
LIMIT, BINWATCH, NOTEBOOK = "limit in memory", "Binwatch", "notebooks' way"
RAY, RAY_TUNED = "Ray Data, its defaults", "Ray Data, tuned"
# (actors, threads of each actor, photos in a batch) for --tune-ray
RAY_SETTINGS = [
    (1, CORES, 16),
    (2, max(1, CORES // 2), 16),
    (CORES, 1, 8),
    (CORES, 1, 16),
    (CORES, 1, 32),
    (CORES, 1, 64),
]


@dataclass(frozen=True, slots=True)
class WayRun:
    """One run of one way.

    `total_s` is from the process's start to its end, `steady` in photos/s after start-up, `peak` in bytes of memory.
    """

    photos: int
    total_s: float
    steady: float
    processor_s: float
    peak: int
    predicted: Mapping[str, int]


def main() -> None:
    options = _options()
    if find_spec("ray") is None:
        sys.exit("Ray is not installed: uv pip install -c requirements.lock -e '.[dev,benchmarks]'")
    files = photo_files(options.folder)
    tuning = {
        f"{actors} actors of {threads} threads, batch {batch}": (actors, threads, batch)
        for actors, threads, batch in RAY_SETTINGS
    }
    with tempfile.TemporaryDirectory(prefix="binwatch-photos-") as folder:
        link_photos(files, Path(folder), options.photos)
        if options.tune_ray:
            ways = {way: _ray_command(folder, options, *settings) for way, settings in tuning.items()}
        else:
            ways = _commands(folder, options)
        runs = run_rounds(ways, options.rounds)
    print(f"{options.photos} photos, {CORES} cores, medians of {options.rounds} rounds")
    _print_table(runs)
    if not options.tune_ray:
        _print_ratios(runs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=600, help="photos of the folder are repeated if there are fewer")
    parser.add_argument("--notebook-photos", type=int, default=150, help="for the notebooks' way, which is slow")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument(
        "--ray",
        type=int,
        nargs=3,
        default=(CORES, 1, 16),
        metavar=("ACTORS", "THREADS", "BATCH"),
        help="tuned settings",
    )
    parser.add_argument("--tune-ray", action="store_true")
    return parser.parse_args()


def link_photos(files: Sequence[Path], folder: Path, photos: int) -> None:
    """Fill `folder` with links to `photos` photos, and read each file once."""
    for number, file in enumerate(islice(cycle(files), photos)):
        (folder / f"{number:06}{file.suffix}").symlink_to(file.absolute())
    for file in files:
        file.read_bytes()


def _commands(folder: str, options: argparse.Namespace) -> dict[str, list[str]]:
    model = ["--model", str(options.model.absolute())]
    return {
        LIMIT: ["limit", folder, *model],
        BINWATCH: ["files", folder, *model],
        RAY_TUNED: _ray_command(folder, options, *options.ray),
        RAY: ["ray_data", folder, *model],
        NOTEBOOK: ["notebook", folder, "--photos", str(options.notebook_photos)],
    }


def _ray_command(folder: str, options: argparse.Namespace, actors: int, threads: int, batch: int) -> list[str]:
    tuned = ["--actors", str(actors), "--threads", str(threads), "--batch-size", str(batch)]
    return ["ray_data", folder, "--model", str(options.model.absolute()), *tuned]


def run_rounds(ways: Mapping[str, list[str]], rounds: int) -> dict[str, list[WayRun]]:
    """Run each way once per round, in reverse order in every second round."""
    runs: dict[str, list[WayRun]] = {name: [] for name in ways}
    for round_index in range(rounds):
        for name in list(ways) if round_index % 2 == 0 else reversed(ways):
            runs[name].append(run_way(ways[name]))
            print(f"round {round_index + 1}: {name}: {runs[name][-1].total_s:.1f} s", file=sys.stderr)
    return runs


def run_way(way: Sequence[str]) -> WayRun:
    """Run one way in a new process."""
    started = time.perf_counter()
    command = [sys.executable, "-m", f"benchmarks.ways.{way[0]}", *way[1:]]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
        cost = ProcessCost(process.pid)
        output, _ = process.communicate()
        total_s = time.perf_counter() - started
        processor_s, peak = cost.total()
        if process.returncode != 0:
            errors.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{errors.read()}")
    report = json.loads(output.splitlines()[-1])
    photos = len(report["predicted"]) or report["steady_photos"]
    steady = report["steady_photos"] / report["steady_s"]
    return WayRun(photos, total_s, steady, processor_s, peak, report["predicted"])


def _print_table(runs: Mapping[str, list[WayRun]]) -> None:
    print(f"{'photos/s':<36}{'once started':>12}{'':20}{'with start':>12}{'ms of CPU a photo':>20}{'peak MB':>9}")
    for name, rounds in runs.items():
        steady = [run.steady for run in rounds]
        spread = f"({min(steady):.1f} to {max(steady):.1f})"
        total = statistics.median(run.photos / run.total_s for run in rounds)
        processor = statistics.median(1000 * run.processor_s / run.photos for run in rounds)
        peak = max(run.peak for run in rounds) / 1e6
        print(f"{name:<36}{statistics.median(steady):12.1f} {spread:<19}{total:12.1f}{processor:20.1f}{peak:9,.0f}")


def _print_ratios(runs: Mapping[str, list[WayRun]]) -> None:
    _check_same_counts(runs)
    print("Binwatch is as fast as, in each round:")
    for other in (LIMIT, RAY_TUNED, RAY, NOTEBOOK):
        pairs = list(zip(runs[BINWATCH], runs[other], strict=True))
        steady = [ours.steady / theirs.steady for ours, theirs in pairs]
        with_start = [(ours.photos / ours.total_s) / (theirs.photos / theirs.total_s) for ours, theirs in pairs]
        print(f"  {other:<34}{_spread(steady)} once started; {_spread(with_start)} with start")


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} × ({min(ratios):.2f} to {max(ratios):.2f})"


def _check_same_counts(runs: Mapping[str, list[WayRun]]) -> None:
    """Exit if the counts of a way differ from Binwatch's: then its speed cannot be compared."""
    counts = runs[BINWATCH][0].predicted
    for name in (BINWATCH, RAY, RAY_TUNED):
        for run in runs[name]:
            if run.predicted != counts:
                differing = sum(run.predicted.get(key) != value for key, value in counts.items())
                sys.exit(f"{name} has other counts than Binwatch for {differing} of {len(counts)} photos")


if __name__ == "__main__":
    main()
