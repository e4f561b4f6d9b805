"""Measure drift detection: false alarms, how soon a disturbance is detected, single windows, and estimated accuracy.

    python -m benchmarks.held_out FOLDER held-out.npz
    python -m benchmarks.drift held-out.npz

False alarms: quarters without drift are simulated (benchmarks/quarters.py), each with its own half of the bin groups as
the reference and the other half as the warehouse.

Delays: streams of test photos are disturbed from some photo on. The reference is the validation split, as in the
bundle.

Slices: SLICES streams at a time, one of which is disturbed, each with its share of the budget.

Windows: for each window, the bin groups of the held-out photos are split at random. One part is the reference; the
window has one photo of each group of the other, as the monitor takes one photo of each bin. Nothing drifts between the
two.

Detection: windows are drawn from disturbed test photos. The reference is the validation split, as in the bundle.

The signal `bytes` is left out, because the photos are resized copies.
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
from monitor.drift.alarms import budget_share
from monitor.drift.estimate import estimated_accuracy
from monitor.drift.judge import MIN_PHOTOS, WINDOW_LEVEL, Verdict, judge
from monitor.drift.windows import PhotoSample

SIZES = (50, 100, 200, 300, 1000)
DETECTION_SIZES = (50, 200, 1000)
LEVELS = (WINDOW_LEVEL, 0.05)
DETECTION_WINDOWS = 200
RATES = (10, 100, 1000, 100_000)
"""Photos per hour."""
DIM_FACTOR = 0.75
"""Brightness and contrast at night, relative to those by day."""
UNDISTURBED_BATCHES = 70
"""Number of batches before a disturbance."""
DISTURBED_BATCHES = 12
"""Number of batches after the start of a disturbance."""
SLICES = 10
MAX_DELAYS = (100, 200, 300)
"""Numbers of photos within which a disturbance should be detected."""

EXCLUDED_SIGNALS: set[Signal] = set()

Arrays = dict[str, np.ndarray]


def load_arrays(file: Path) -> Arrays:
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def select_photos(arrays: Arrays, variant: str, rows: np.ndarray) -> Arrays:
    """Return photos of a variant ("none", "darker weak", …), by row among all held-out photos."""
    variant_rows = rows if variant == "none" else np.searchsorted(np.flatnonzero(arrays["splits"] == "test"), rows)
    photos = {key: arrays[f"{variant}/{key}"][variant_rows] for key in ("probabilities", "embeddings", "stats")}
    return photos | {"labels": arrays["labels"][rows], "shape": arrays["shape"][rows], "groups": arrays["groups"][rows]}


def properties(photos: Arrays) -> dict[Signal, np.ndarray]:
    brightness, contrast, sharpness = photos["stats"].T
    values_by_signal = {
        Signal.BRIGHTNESS: brightness,
        Signal.CONTRAST: contrast,
        Signal.SHARPNESS: sharpness,
        Signal.SHAPE: photos["shape"],
    }
    return {signal: values for signal, values in values_by_signal.items() if signal not in EXCLUDED_SIGNALS}


def reference_of(photos: Arrays) -> Reference:
    bins = len(np.unique(photos["groups"]))
    return make_reference(
        ReferenceData(photos["probabilities"], photos["labels"], photos["embeddings"], properties(photos), bins)
    )


def sample_of(photos: Arrays) -> PhotoSample:
    predicted = photos["probabilities"].argmax(axis=1)
    return PhotoSample(
        predicted=predicted,
        confidence=photos["probabilities"].max(axis=1),
        expected=photos["labels"],
        agreed=int((predicted == photos["labels"]).sum()),
        properties=properties(photos),
        embeddings=photos["embeddings"],
    )


def split_groups(arrays: Arrays, size: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a reference, and of a window of `size` photos of different bin groups. No group is in both."""
    groups = arrays["groups"]
    order = random.permutation(groups.max() + 1)
    window, rest = order[:size], order[max(size, len(order) // 2) :]
    rows = random.permutation(len(groups))
    row_of_group = rows[np.unique(groups[rows], return_index=True)[1]]
    return np.flatnonzero(np.isin(groups, rest)), row_of_group[window]


@dataclass(frozen=True)
class UndisturbedWindow:
    """The false alarms in one window at each level, and its accuracies and mean confidence."""

    alarms: dict[float, list[Signal]]
    estimated: float
    measured: float
    confidence: float


def judge_undisturbed(arrays: Arrays, seed: int) -> dict[int, UndisturbedWindow]:
    """Judge one window of each size."""
    random = np.random.default_rng(seed)
    windows = {}
    for size in SIZES:
        reference_rows, window_rows = split_groups(arrays, size, random)
        reference = reference_of(select_photos(arrays, "none", reference_rows))
        sample = sample_of(select_photos(arrays, "none", window_rows))
        alarms = {level: drifted_signals(sample, reference, level) for level in LEVELS}
        estimated = estimated_accuracy(sample, reference)
        assert estimated is not None
        windows[size] = UndisturbedWindow(alarms, estimated, sample.agreed / size, float(sample.confidence.mean()))
    return windows


def drifted_signals(sample: PhotoSample, reference: Reference, level: float = WINDOW_LEVEL) -> list[Signal]:
    return [result.signal for result in judge(sample, reference, level) if result.verdict is Verdict.DRIFTED]


def show_undisturbed(arrays: Arrays, n_windows: int) -> None:
    with ProcessPoolExecutor(usable_cores()) as pool:
        runs = list(pool.map(partial(judge_undisturbed, arrays), range(n_windows), chunksize=10))
    windows = {size: [run[size] for run in runs] for size in SIZES}
    print(f"\nFalse alarms, {n_windows} undisturbed windows of each size\n")
    print(f"| photos | at a level of {WINDOW_LEVEL:.1%} | at 5 % | signals that raised one at {WINDOW_LEVEL:.1%} |")
    for size in SIZES:
        shares = [sum(bool(window.alarms[level]) for window in windows[size]) / n_windows for level in LEVELS]
        signals = Counter(signal.value for window in windows[size] for signal in window.alarms[WINDOW_LEVEL])
        names = ", ".join(f"{name} {count}" for name, count in signals.most_common()) or "none"
        print(f"| {size} | {shares[0]:.1%} | {shares[1]:.1%} | {names} |")
    print("\nEstimated against measured accuracy, undisturbed windows, in percentage points\n")
    print("| photos | mean error | mean absolute error | within 3 points | mean confidence: mean error |")
    for size in SIZES:
        errors = np.array([window.estimated - window.measured for window in windows[size]])
        confidence_errors = np.array([window.confidence - window.measured for window in windows[size]])
        print(
            f"| {size} | {100 * errors.mean():+.2f} | {100 * np.abs(errors).mean():.2f}"
            f" | {(np.abs(errors) <= 0.03).mean():.1%} | {100 * confidence_errors.mean():+.2f} |"
        )


def show_detection(arrays: Arrays) -> None:
    validation = np.flatnonzero(arrays["splits"] == "validation")
    test = np.flatnonzero(arrays["splits"] == "test")
    reference = reference_of(select_photos(arrays, "none", validation))
    print(f"\nDetection, {DETECTION_WINDOWS} windows each; accuracy of all disturbed test photos\n")
    heads = " | ".join(f"{size} photos" for size in DETECTION_SIZES)
    print(f"| disturbance | {heads} | accuracy | estimated | first signals at 200 |")
    for variant in ["none", *(f"{kind} {strength}" for kind in DISTURBANCES for strength in STRENGTHS)]:
        print(_detection_row(arrays, variant, test, reference), flush=True)


def _detection_row(arrays: Arrays, variant: str, test: np.ndarray, reference: Reference) -> str:
    random = np.random.default_rng(1)
    shares, signals = [], Counter[str]()
    for size in DETECTION_SIZES:
        hits = 0
        for _ in range(DETECTION_WINDOWS):
            sample = sample_of(select_photos(arrays, variant, np.sort(random.choice(test, size, replace=False))))
            drifted = drifted_signals(sample, reference)
            hits += bool(drifted)
            if size == 200:
                signals.update(signal.value for signal in drifted)
        shares.append(hits / DETECTION_WINDOWS)
    all_photos = sample_of(select_photos(arrays, variant, test))
    estimated = estimated_accuracy(all_photos, reference)
    cells = " | ".join(f"{share:.1%}" for share in shares)
    names = ", ".join(name for name, _ in signals.most_common(3))
    return f"| {variant} | {cells} | {all_photos.agreed / len(test):.1%} | {estimated:.1%} | {names} |"


def values_of(photos: Arrays) -> quarters.PhotoValues:
    """Return the values with which quarters are simulated."""
    values = properties(photos) | {Signal.CONFIDENCE: photos["probabilities"].max(axis=1)}
    return quarters.PhotoValues(
        {signal: np.array(round_for_card(signal_values)) for signal, signal_values in values.items()},
        {Signal.PREDICTED: photos["probabilities"].argmax(axis=1), Signal.EXPECTED: photos["labels"]},
        photos["embeddings"].astype(float),
    )


def group_numbers(arrays: Arrays, rows: np.ndarray) -> np.ndarray:
    """Number the bin groups of the rows in the order of the photos' keys, which is that of the file."""
    groups = arrays["groups"][rows]
    distinct, first = np.unique(groups, return_index=True)
    numbers: np.ndarray = np.argsort(np.argsort(first))[np.searchsorted(distinct, groups)]
    return numbers


def typical_counts(arrays: Arrays) -> dict[Signal, tuple[int, ...]]:
    """Return the counts by class of all held-out photos."""
    reference = reference_of(select_photos(arrays, "none", np.arange(len(arrays["groups"]))))
    return {Signal.PREDICTED: tuple(reference.predicted), Signal.EXPECTED: tuple(reference.labels)}


@dataclass(frozen=True)
class Scenario:
    """How photos are taken in a simulated quarter, and what alarms compare them with."""

    walk: int
    """Number of neighbouring bins photographed in a row."""
    share_per_day: float
    """Share of the bins that are photographed in a day."""
    dim_nights: bool
    """Whether brightness and contrast are lower at night, by DIM_FACTOR."""
    baseline: DriftReference


def dim(photos: quarters.PhotoValues) -> quarters.PhotoValues:
    """Lower the brightness and contrast of photos. Predictions and embeddings are not changed."""
    signals = (Signal.BRIGHTNESS, Signal.CONTRAST)
    dimmed = {signal: np.array(round_for_card(DIM_FACTOR * photos.values[signal])) for signal in signals}
    return replace(photos, values=photos.values | dimmed)


def simulate_quarter(
    arrays: Arrays,
    photos: quarters.PhotoValues,
    counts: dict[Signal, tuple[int, ...]],
    rate: float,
    scenario: Scenario,
    seed: int,
) -> list[str]:
    """Return the signals whose alarms an undisturbed quarter raises. `photos` are the values of all `arrays`."""
    random = np.random.default_rng(seed)
    groups = arrays["groups"]
    is_reference = np.isin(groups, random.permutation(groups.max() + 1)[: (groups.max() + 1) // 2])
    reference = reference_of(select_photos(arrays, "none", np.flatnonzero(is_reference)))
    rows = np.flatnonzero(~is_reference)
    uses_same_hours = scenario.baseline is DriftReference.SAME_HOURS
    total_minutes = same_hours.TOTAL_MINUTES if uses_same_hours else quarters.QUARTER_MINUTES
    sizes, minutes = quarters.batch_sizes_and_intervals(rate, total_minutes, random)
    stream = quarters.make_stream(
        sizes, minutes, group_numbers(arrays, rows), rows, random, scenario.walk, scenario.share_per_day
    )
    if scenario.dim_nights:
        stream.row[quarters.is_night(quarters.photo_minutes(stream) // 60 % 24)] += len(groups)
        photos = quarters.concatenate(photos, dim(photos))
    if uses_same_hours:
        alarms = same_hours.find_alarms(stream, photos, reference, counts[Signal.PREDICTED], seed)
    else:
        measures = quarters.measure_windows(stream, photos, reference)
        alarms = quarters.find_alarms(measures, minutes, quarters.Thresholds(reference, counts))
    return [alarm.signal.value for alarm in alarms]


def show_quarters(arrays: Arrays, n_quarters: int, rates: Sequence[int], scenario: Scenario, processes: int) -> None:
    print(f"\nFalse alarms per quarter, {n_quarters} undisturbed quarters at each rate, {scenario}\n")
    print("| photos per hour | false alarms per quarter | upper 95 % bound | quarters with any | maximum | signals |")
    photos, counts = values_of(select_photos(arrays, "none", np.arange(len(arrays["groups"])))), typical_counts(arrays)
    for rate in rates:
        with ProcessPoolExecutor(processes) as pool:
            simulate = partial(simulate_quarter, arrays, photos, counts, rate, scenario)
            signals_by_quarter = list(pool.map(simulate, range(n_quarters)))
        alarms = np.array([len(signals) for signals in signals_by_quarter])
        upper = alarms.mean() + 1.645 * alarms.std(ddof=1) / np.sqrt(n_quarters)
        totals = Counter(signal for signals in signals_by_quarter for signal in signals)
        names = ", ".join(f"{name} {count}" for name, count in totals.most_common()) or "none"
        print(
            f"| {rate:,} | {alarms.mean():.2f} | {upper:.2f} | {(alarms > 0).mean():.0%} | {alarms.max()} | {names} |",
            flush=True,
        )


@dataclass(frozen=True)
class DisturbedPhotos:
    """The test photos, undisturbed and disturbed, and what they are compared with."""

    name: str
    """Name of the disturbance and its strength."""
    reference: Reference
    photos: quarters.PhotoValues
    """The undisturbed photos of `groups`, followed by the disturbed ones."""
    limits: quarters.Thresholds
    groups: np.ndarray


def read_disturbed(arrays: Arrays) -> Iterator[DisturbedPhotos]:
    """Yield the photos of every disturbance in the file, the strong ones first."""
    validation, test = (np.flatnonzero(arrays["splits"] == split) for split in ("validation", "test"))
    reference = reference_of(select_photos(arrays, "none", validation))
    undisturbed = values_of(select_photos(arrays, "none", test))
    limits = quarters.Thresholds(reference, typical_counts(arrays))
    limits.simulate()
    for name in [f"{kind} {strength}" for strength in reversed(STRENGTHS) for kind in DISTURBANCES]:
        if f"{name}/stats" in arrays:  # depends on the --strengths of benchmarks.held_out
            photos = quarters.concatenate(undisturbed, values_of(select_photos(arrays, name, test)))
            yield DisturbedPhotos(name, reference, photos, limits, group_numbers(arrays, test))


def detection_delay(
    disturbed: DisturbedPhotos, rate: float, walk: int, seed: int, share: float = 1.0, *, is_disturbed: bool = True
) -> float:
    """Return the number of batched photos from the disturbance to the first alarm, with a share of the budget.

    It is infinite if none of the DISTURBED_BATCHES raises one.
    """
    random = np.random.default_rng(seed)
    n_batches = UNDISTURBED_BATCHES + DISTURBED_BATCHES
    days = int((n_batches + 1) * MIN_PHOTOS / rate / 24) + 2
    sizes, minutes = quarters.batch_sizes_and_intervals(rate, days * quarters.MINUTES_PER_DAY, random)
    sizes, minutes = sizes[:n_batches], minutes[:n_batches]
    n_photos = len(disturbed.groups)
    stream = quarters.make_stream(sizes, minutes, disturbed.groups, np.arange(n_photos), random, walk)
    start = random.integers(*np.searchsorted(stream.batch, (UNDISTURBED_BATCHES - 1, UNDISTURBED_BATCHES)))
    if is_disturbed:
        stream.row[start:] += n_photos
    measures = quarters.measure_windows(stream, disturbed.photos, disturbed.reference)
    alarms = quarters.find_alarms(measures, minutes, disturbed.limits, share)
    batches = [alarm.batch for alarm in alarms if alarm.batch >= stream.batch[start]]
    ends = np.searchsorted(stream.batch, [batch + 1 for batch in batches])
    return float(min(ends - start, default=np.inf))


def format_delays(delays: np.ndarray) -> str:
    """Format the shares of delays within each of MAX_DELAYS, and the median."""
    shares = ", ".join(f"{(delays <= max_delay).mean():.0%}" for max_delay in MAX_DELAYS)
    return f"{shares}; {np.median(delays):.0f}"


def show_delays(arrays: Arrays, runs: int, rates: Sequence[int], walk: int, processes: int) -> None:
    print(f"\nDelay of alarms after a disturbance, in photos, {runs} streams each, walks of {walk} bins\n")
    heads = " | ".join(f"{rate:,} per hour: within {', '.join(map(str, MAX_DELAYS))}; median" for rate in rates)
    print(f"| disturbance | {heads} |")
    for disturbed in read_disturbed(arrays):
        cells = []
        for rate in rates:
            with ProcessPoolExecutor(processes) as pool:
                run = partial(detection_delay, disturbed, rate, walk)
                delays = list(pool.map(run, range(1000, 1000 + runs), chunksize=10))
            cells.append(format_delays(np.array(delays)))
        print(f"| {disturbed.name} | {' | '.join(cells)} |", flush=True)


def slice_delay(disturbed: DisturbedPhotos, rate: float, walk: int, seed: int) -> tuple[float, int]:
    """Disturb one of SLICES slices. Return its delay, and how many other slices raise an alarm.

    Other slices count if they raise one in any of the DISTURBED_BATCHES.
    """
    share = budget_share(SLICES, all_photos=False)
    run = partial(detection_delay, disturbed, rate / SLICES, walk, share=share)
    delay, *other_delays = (run(SLICES * seed + index, is_disturbed=index == 0) for index in range(SLICES))
    return delay, int(np.isfinite(other_delays).sum())


def show_slices(arrays: Arrays, runs: int, rates: Sequence[int], walk: int, processes: int) -> None:
    print(f"\nOne of {SLICES} slices disturbed, {runs} runs each, walks of {walk} bins\n")
    limits = ", ".join(map(str, MAX_DELAYS))
    print(f"| disturbance | photos per hour, all slices | detected within {limits} photos; median | others silent |")
    for disturbed in read_disturbed(arrays):
        for rate in rates:
            with ProcessPoolExecutor(processes) as pool:
                results = pool.map(partial(slice_delay, disturbed, rate, walk), range(1000, 1000 + runs))
                delays, false_alarms = np.array(list(results)).T
            silent = (false_alarms == 0).mean()
            print(f"| {disturbed.name} | {rate:,} | {format_delays(delays)} | {silent:.0%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--windows", type=int, default=1000, help="undisturbed windows of each size")
    parser.add_argument("--quarters", type=int, default=200, help="undisturbed quarters at each rate")
    parser.add_argument("--streams", type=int, default=100, help="streams of each disturbance at each rate")
    parser.add_argument("--slices", type=int, default=0, help="runs with slices, of each disturbance at each rate")
    parser.add_argument("--rates", type=int, nargs="*", default=RATES, help="photos per hour")
    parser.add_argument("--walk", type=int, default=quarters.WALK_BINS, help="neighbouring bins photographed in a row")
    parser.add_argument("--day", type=float, default=1.0, help="share of the bins that are photographed in a day")
    parser.add_argument("--dim-nights", action="store_true", help="less light at night, in undisturbed quarters")
    parser.add_argument(
        "--reference", type=DriftReference, choices=list(DriftReference), default=DriftReference.TRAINING
    )
    parser.add_argument("--processes", type=int, default=usable_cores())
    parser.add_argument("--without", type=Signal, nargs="*", default=[], help="photo properties to leave out")
    options = parser.parse_args()
    EXCLUDED_SIGNALS.update(options.without)
    arrays = load_arrays(options.held_out)
    counts = Counter(arrays["splits"].tolist())
    print(f"model {arrays['version']}, photos: {dict(counts)}, {usable_cores()} cores")
    if options.quarters:
        scenario = Scenario(options.walk, options.day, options.dim_nights, options.reference)
        show_quarters(arrays, options.quarters, options.rates, scenario, options.processes)
    if options.streams:
        show_delays(arrays, options.streams, options.rates, options.walk, options.processes)
    if options.slices:
        show_slices(arrays, options.slices, options.rates, options.walk, options.processes)
    if options.windows:
        show_undisturbed(arrays, options.windows)
        show_detection(arrays)


if __name__ == "__main__":
    main()
