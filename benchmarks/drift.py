"""How often the monitor raises a false alarm, what it finds, and how well it estimates accuracy without labels.

    python -m benchmarks.held_out PHOTOS_TAR INDEX_CSV held-out.npz
    python -m benchmarks.drift held-out.npz

False alarms: bin groups of the held-out photos are parted at random, again for each window: one part is the reference,
the window has one photo of each group of the other, as the monitor takes one photo of each bin. Nothing has drifted
between the two. Detection: the reference is the validation
split, as in the bundle; windows are drawn from disturbed test photos. The bytes of a file are not watched here, since
the photos are squashed copies.
"""

from __future__ import annotations

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.disturbances import DISTURBANCES, STRENGTHS
from binwatch.bundle import Reference
from binwatch.cores import cores
from binwatch.reference import Observed, Signal, make_reference
from monitor.drift.estimate import estimated_accuracy
from monitor.drift.judge import LEVEL, Verdict, judge
from monitor.drift.windows import PhotoSample

SIZES = (50, 100, 200, 300, 1000)
DETECTION_SIZES = (50, 200, 1000)
LEVELS = (LEVEL, 0.05)
DETECTION_WINDOWS = 200

WITHOUT: set[Signal] = set()
"""Signals that are left out."""

Arrays = dict[str, np.ndarray]


def load_arrays(file: Path) -> Arrays:
    with np.load(file, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def part(arrays: Arrays, name: str, rows: np.ndarray) -> Arrays:
    """Photos of one variant ("none", "darker weak", …) by row among all held-out photos."""
    at = rows if name == "none" else np.searchsorted(np.flatnonzero(arrays["splits"] == "test"), rows)
    found = {key: arrays[f"{name}/{key}"][at] for key in ("probabilities", "embeddings", "stats")}
    return found | {"labels": arrays["labels"][rows], "shape": arrays["shape"][rows], "groups": arrays["groups"][rows]}


def properties(photos: Arrays) -> dict[Signal, np.ndarray]:
    brightness, contrast, sharpness = photos["stats"].T
    every = {
        Signal.BRIGHTNESS: brightness,
        Signal.CONTRAST: contrast,
        Signal.SHARPNESS: sharpness,
        Signal.SHAPE: photos["shape"],
    }
    return {signal: values for signal, values in every.items() if signal not in WITHOUT}


def reference_of(photos: Arrays) -> Reference:
    bins = len(np.unique(photos["groups"]))
    seen = Observed(photos["probabilities"], photos["labels"], photos["embeddings"], properties(photos), bins)
    return make_reference(seen)


def window_of(photos: Arrays) -> PhotoSample:
    predicted = photos["probabilities"].argmax(axis=1)
    return PhotoSample(
        predicted=predicted,
        confidence=photos["probabilities"].max(axis=1),
        expected=photos["labels"],
        agreed=int((predicted == photos["labels"]).sum()),
        properties=properties(photos),
        embeddings=photos["embeddings"],
    )


def parted(arrays: Arrays, size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a reference, and of a window of `size` photos of different bin groups. No group is in both."""
    groups = arrays["groups"]
    order = random.permutation(groups.max() + 1)
    window, rest = order[:size], order[max(size, len(order) // 2) :]
    rows = random.permutation(len(groups))
    one_of_each = rows[np.unique(groups[rows], return_index=True)[1]]
    return np.flatnonzero(np.isin(groups, rest)), one_of_each[window]


def undisturbed(arrays: Arrays, seed: int) -> dict[int, tuple[dict[float, list[Signal]], float, float, float]]:
    """Size → alarms at each level, estimated and measured accuracy, and mean confidence, of one window."""
    random = np.random.default_rng(seed)
    found = {}
    for size in SIZES:
        rest, window = parted(arrays, size, random)
        reference = reference_of(part(arrays, "none", rest))
        seen = window_of(part(arrays, "none", window))
        alarms = {
            level: [one.signal for one in judge(seen, reference, level) if one.verdict is Verdict.DRIFTED]
            for level in LEVELS
        }
        estimated = estimated_accuracy(seen, reference)
        assert estimated is not None
        found[size] = (alarms, estimated, seen.agreed / size, float(seen.confidence.mean()))
    return found


def show_undisturbed(arrays: Arrays, windows: int) -> None:
    with ProcessPoolExecutor(cores()) as pool:
        found = list(pool.map(partial(undisturbed, arrays), range(windows), chunksize=10))
    print(f"\nFalse alarms, {windows} undisturbed windows of each size\n")
    print(f"| photos | at the level of {LEVEL:.1%} | at 5 % | signals that raised one at {LEVEL:.1%} |")
    for size in SIZES:
        shares = [sum(bool(one[size][0][level]) for one in found) / windows for level in LEVELS]
        signals = Counter(signal.value for one in found for signal in one[size][0][LEVEL])
        names = ", ".join(f"{name} {number}" for name, number in signals.most_common()) or "none"
        print(f"| {size} | {shares[0]:.1%} | {shares[1]:.1%} | {names} |")
    print("\nEstimated accuracy against the measured one, undisturbed, in points\n")
    print("| photos | mean error | mean absolute error | within 3 points | mean confidence: mean error |")
    for size in SIZES:
        errors = np.array([one[size][1] - one[size][2] for one in found])
        raw = np.array([one[size][3] - one[size][2] for one in found])
        print(
            f"| {size} | {100 * errors.mean():+.2f} | {100 * np.abs(errors).mean():.2f}"
            f" | {(np.abs(errors) <= 0.03).mean():.1%} | {100 * raw.mean():+.2f} |"
        )


def show_detection(arrays: Arrays) -> None:
    validation = np.flatnonzero(arrays["splits"] == "validation")
    test = np.flatnonzero(arrays["splits"] == "test")
    reference = reference_of(part(arrays, "none", validation))
    print(f"\nDetection, {DETECTION_WINDOWS} windows each; accuracy of all disturbed test photos\n")
    heads = " | ".join(f"{size} photos" for size in DETECTION_SIZES)
    print(f"| disturbance | {heads} | accuracy | estimated | first signals at 200 |")
    for name in ["none", *(f"{kind} {strength}" for kind in DISTURBANCES for strength in STRENGTHS)]:
        print(_detection_row(arrays, name, test, reference), flush=True)


def _detection_row(arrays: Arrays, name: str, test: np.ndarray, reference: Reference) -> str:
    random = np.random.default_rng(1)
    shares, signals = [], Counter[str]()
    for size in DETECTION_SIZES:
        hits = 0
        for _ in range(DETECTION_WINDOWS):
            seen = window_of(part(arrays, name, np.sort(random.choice(test, size, replace=False))))
            alarms = [one.signal.value for one in judge(seen, reference) if one.verdict is Verdict.DRIFTED]
            hits += bool(alarms)
            if size == 200:
                signals.update(alarms)
        shares.append(hits / DETECTION_WINDOWS)
    every = window_of(part(arrays, name, test))
    estimated = estimated_accuracy(every, reference)
    cells = " | ".join(f"{share:.1%}" for share in shares)
    names = ", ".join(name for name, _ in signals.most_common(3))
    return f"| {name} | {cells} | {every.agreed / len(test):.1%} | {estimated:.1%} | {names} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--without", type=Signal, nargs="*", default=[], help="photo properties to leave out")
    options = parser.parse_args()
    WITHOUT.update(options.without)
    arrays = load_arrays(options.held_out)
    counts = Counter(arrays["splits"].tolist())
    print(f"model {arrays['version']}, photos: {dict(counts)}, {cores()} cores")
    if options.windows:
        show_undisturbed(arrays, options.windows)
    show_detection(arrays)


if __name__ == "__main__":
    main()
