"""How often the monitor raises a false alarm and how soon it finds what; what windows show, and estimated accuracy.

    python -m benchmarks.held_out FOLDER held-out.npz
    python -m benchmarks.drift held-out.npz

Alarms: quarters are simulated (benchmarks/quarters.py), each with its own half of the bin groups as the reference and
the other half as the warehouse, without drift; and streams of test photos that are disturbed from some photo on, with
the validation split as the reference, as in the bundle.

Slices: SLICES streams at a time, one of which is disturbed, each with its share of the budget.

Windows: bin groups of the held-out photos are parted at random, again for each window: one part is the reference,
the window has one photo of each group of the other, as the monitor takes one photo of each bin. Nothing has drifted
between the two. Detection: the reference is the validation
split, as in the bundle; windows are drawn from disturbed test photos. The bytes of a file are not watched here, since
the photos are squashed copies.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import quarters, same_hours
from benchmarks.disturbances import DISTURBANCES, STRENGTHS
from binwatch.bundle import Reference
from binwatch.cores import usable_cores
from binwatch.reference import ReferenceData, Signal, make_reference, round_for_card
from binwatch.settings import DriftReference
from monitor.drift.alarms import share_of
from monitor.drift.estimate import estimated_accuracy
from monitor.drift.judge import LEVEL, MIN_PHOTOS, Verdict, judge
from monitor.drift.windows import PhotoSample

SIZES = (50, 100, 200, 300, 1000)
DETECTION_SIZES = (50, 200, 1000)
LEVELS = (LEVEL, 0.05)
DETECTION_WINDOWS = 200
RATES = (10, 100, 1000, 100_000)
"""Photos an hour."""
DIM = 0.75
BEFORE = 70
"""Undisturbed batches before a disturbance."""
AFTER = 12
"""Disturbed ones."""
SLICES = 10
SOON = (100, 200, 300)
"""Photos after which a disturbance should have been found."""

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
    seen = ReferenceData(photos["probabilities"], photos["labels"], photos["embeddings"], properties(photos), bins)
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
    with ProcessPoolExecutor(usable_cores()) as pool:
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


def photos_of(photos: Arrays) -> quarters.PhotoValues:
    """What quarters are simulated with."""
    values = properties(photos) | {Signal.CONFIDENCE: photos["probabilities"].max(axis=1)}
    return quarters.PhotoValues(
        {signal: np.array(round_for_card(one)) for signal, one in values.items()},
        {Signal.PREDICTED: photos["probabilities"].argmax(axis=1), Signal.EXPECTED: photos["labels"]},
        photos["embeddings"].astype(float),
    )


def places(arrays: Arrays, rows: np.ndarray) -> np.ndarray:
    """Number of each row's bin group, in the order of the photos' keys (that of the file)."""
    groups = arrays["groups"][rows]
    found, first = np.unique(groups, return_index=True)
    place: np.ndarray = np.argsort(np.argsort(first))[np.searchsorted(found, groups)]
    return place


def typical_counts(arrays: Arrays) -> dict[Signal, tuple[int, ...]]:
    """By class, of all held-out photos."""
    every = reference_of(part(arrays, "none", np.arange(len(arrays["groups"]))))
    return {Signal.PREDICTED: tuple(every.predicted), Signal.EXPECTED: tuple(every.labels)}


@dataclass(frozen=True)
class Life:
    """How photos come in a simulated quarter, and what alarms compare them with."""

    walk: int
    """Neighbouring bins photographed one by one."""
    a_day: float
    """Share of the bins that the photos of a day are of."""
    dim_nights: bool
    """At night, brightness and contrast are three quarters of those by day."""
    reference: DriftReference


def dimmed(photos: quarters.PhotoValues) -> quarters.PhotoValues:
    """Brightness and contrast of the same photos with less light; what the model makes of them is left as it is."""
    dim = {one: np.array(round_for_card(DIM * photos.values[one])) for one in (Signal.BRIGHTNESS, Signal.CONTRAST)}
    return replace(photos, values=photos.values | dim)


def quarter(
    arrays: Arrays,
    photos: quarters.PhotoValues,
    counts: dict[Signal, tuple[int, ...]],
    rate: float,
    life: Life,
    seed: int,
) -> list[str]:
    """Signals whose alarms an undisturbed quarter raises. `photos` are those of `arrays`."""
    random = np.random.default_rng(seed)
    groups = arrays["groups"]
    is_reference = np.isin(groups, random.permutation(groups.max() + 1)[: (groups.max() + 1) // 2])
    reference = reference_of(part(arrays, "none", np.flatnonzero(is_reference)))
    rows = np.flatnonzero(~is_reference)
    by_hours = life.reference is DriftReference.SAME_HOURS
    came, minutes = quarters.closings(rate, same_hours.length() if by_hours else quarters.MINUTES, random)
    stream = quarters.stream(came, minutes, places(arrays, rows), rows, random, life.walk, life.a_day)
    if life.dim_nights:
        stream.row[quarters.is_night(quarters.times(stream) // 60 % 24)] += len(groups)
        photos = quarters.joined(photos, dimmed(photos))
    if by_hours:
        found = same_hours.alarms(stream, photos, reference, counts[Signal.PREDICTED], seed)
    else:
        limits = quarters.Thresholds(reference, photos.signals, counts)
        found = quarters.alarms(quarters.judged(stream, photos, reference), minutes, limits)
    return [one.signal.value for one in found]


def show_quarters(arrays: Arrays, number: int, rates: Sequence[int], life: Life, processes: int) -> None:
    print(f"\nFalse alarms in a quarter, {number} undisturbed quarters at each rate, {life}\n")
    print("| photos an hour | false alarms in a quarter | upper 95 % bound | quarters with one | most | signals |")
    photos, counts = photos_of(part(arrays, "none", np.arange(len(arrays["groups"])))), typical_counts(arrays)
    for rate in rates:
        with ProcessPoolExecutor(processes) as pool:
            found = list(pool.map(partial(quarter, arrays, photos, counts, rate, life), range(number)))
        alarms = np.array([len(one) for one in found])
        upper = alarms.mean() + 1.645 * alarms.std(ddof=1) / np.sqrt(number)
        signals = Counter(signal for one in found for signal in one)
        names = ", ".join(f"{name} {times}" for name, times in signals.most_common()) or "none"
        print(
            f"| {rate:,} | {alarms.mean():.2f} | {upper:.2f} | {(alarms > 0).mean():.0%} | {alarms.max()} | {names} |",
            flush=True,
        )


@dataclass(frozen=True)
class Disturbed:
    """Test photos, as they are and then disturbed, and what they are compared with."""

    name: str
    reference: Reference
    photos: quarters.PhotoValues
    """Those of the `groups` as they are, and then disturbed."""
    limits: quarters.Thresholds
    groups: np.ndarray


def disturbed(arrays: Arrays) -> Iterator[Disturbed]:
    """Every disturbance that the file has, the strong ones first."""
    validation, test = (np.flatnonzero(arrays["splits"] == split) for split in ("validation", "test"))
    reference, calm = reference_of(part(arrays, "none", validation)), photos_of(part(arrays, "none", test))
    limits = quarters.Thresholds(reference, calm.signals, typical_counts(arrays))
    for name in [f"{kind} {strength}" for strength in reversed(STRENGTHS) for kind in DISTURBANCES]:
        if f"{name}/stats" in arrays:  # which ones, benchmarks.held_out --strengths says
            photos = quarters.joined(calm, photos_of(part(arrays, name, test)))
            yield Disturbed(name, reference, photos, limits, places(arrays, test))


def delay(of: Disturbed, rate: float, walk: int, seed: int, share: float = 1.0, *, is_disturbed: bool = True) -> float:
    """Photos, of those looked at, until a disturbance raised an alarm; infinite if none of the AFTER batches did.

    `share`: of the budget.
    """
    random = np.random.default_rng(seed)
    days = int((BEFORE + AFTER + 1) * MIN_PHOTOS / rate / 24) + 2
    came, minutes = (one[: BEFORE + AFTER] for one in quarters.closings(rate, days * 24 * 60, random))
    stream = quarters.stream(came, minutes, of.groups, np.arange(len(of.groups)), random, walk)
    begin = random.integers(*np.searchsorted(stream.batch, (BEFORE - 1, BEFORE)))
    if is_disturbed:
        stream.row[begin:] += len(of.groups)
    found = quarters.alarms(quarters.judged(stream, of.photos, of.reference), minutes, of.limits, share)
    ends = np.searchsorted(stream.batch, [one.batch + 1 for one in found if one.batch >= stream.batch[begin]])
    return float(min(ends - begin, default=np.inf))


def within(delays: np.ndarray) -> str:
    """Shares of the delays that were as short as SOON, and the median."""
    shares = ", ".join(f"{(delays <= number).mean():.0%}" for number in SOON)
    return f"{shares}; {np.median(delays):.0f}"


def show_delays(arrays: Arrays, runs: int, rates: Sequence[int], walk: int, processes: int) -> None:
    print(f"\nAlarms within so many photos after a disturbance, {runs} streams each, walks of {walk} bins\n")
    heads = " | ".join(f"{rate:,} an hour: within {', '.join(map(str, SOON))}; median" for rate in rates)
    print(f"| disturbance | {heads} |")
    for one in disturbed(arrays):
        cells = []
        for rate in rates:
            with ProcessPoolExecutor(processes) as pool:
                delays = pool.map(partial(delay, one, rate, walk), range(1000, 1000 + runs), chunksize=10)
                cells.append(within(np.array(list(delays))))
        print(f"| {one.name} | {' | '.join(cells)} |", flush=True)


def moved(of: Disturbed, rate: float, walk: int, seed: int) -> tuple[float, int]:
    """`delay` of one of SLICES slices that is disturbed, and how many others raise an alarm meanwhile.

    Meanwhile: in the AFTER batches, whether the alarm was raised in the first or in the last of them.
    """
    one = partial(delay, of, rate / SLICES, walk, share=share_of(SLICES, whole=False))
    first, *others = (one(SLICES * seed + number, is_disturbed=not number) for number in range(SLICES))
    return first, int(np.isfinite(others).sum())


def show_slices(arrays: Arrays, runs: int, rates: Sequence[int], walk: int, processes: int) -> None:
    print(f"\nOne of {SLICES} slices disturbed, {runs} runs each, walks of {walk} bins\n")
    soon = ", ".join(map(str, SOON))
    print(f"| disturbance | photos an hour, all slices | found within {soon} photos; median | others silent |")
    for one in disturbed(arrays):
        for rate in rates:
            with ProcessPoolExecutor(processes) as pool:
                found = pool.map(partial(moved, one, rate, walk), range(1000, 1000 + runs))
                delays, others = np.array(list(found)).T
            print(f"| {one.name} | {rate:,} | {within(delays)} | {(others == 0).mean():.0%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--windows", type=int, default=1000, help="undisturbed windows of each size")
    parser.add_argument("--quarters", type=int, default=200, help="undisturbed quarters at each rate")
    parser.add_argument("--streams", type=int, default=100, help="streams of each disturbance at each rate")
    parser.add_argument("--slices", type=int, default=0, help="runs with slices, of each disturbance at each rate")
    parser.add_argument("--rates", type=int, nargs="*", default=RATES, help="photos an hour")
    parser.add_argument("--walk", type=int, default=quarters.WALK, help="neighbouring bins photographed one by one")
    parser.add_argument("--day", type=float, default=1.0, help="share of the bins that the photos of a day are of")
    parser.add_argument("--dim-nights", action="store_true", help="less light at night, in undisturbed quarters")
    parser.add_argument(
        "--reference", type=DriftReference, choices=list(DriftReference), default=DriftReference.TRAINING
    )
    parser.add_argument("--processes", type=int, default=usable_cores())
    parser.add_argument("--without", type=Signal, nargs="*", default=[], help="photo properties to leave out")
    options = parser.parse_args()
    WITHOUT.update(options.without)
    arrays = load_arrays(options.held_out)
    counts = Counter(arrays["splits"].tolist())
    print(f"model {arrays['version']}, photos: {dict(counts)}, {usable_cores()} cores")
    if options.quarters:
        life = Life(options.walk, options.day, options.dim_nights, options.reference)
        show_quarters(arrays, options.quarters, options.rates, life, options.processes)
    if options.streams:
        show_delays(arrays, options.streams, options.rates, options.walk, options.processes)
    if options.slices:
        show_slices(arrays, options.slices, options.rates, options.walk, options.processes)
    if options.windows:
        show_undisturbed(arrays, options.windows)
        show_detection(arrays)


if __name__ == "__main__":
    main()
