"""The windows of benchmarks.drift, judged by the monitor, and by Evidently and NannyML with their defaults.

    pip install evidently nannyml    # in an environment of their own: Binwatch does not need them
    python -m benchmarks.drift_others held-out.npz

Evidently and NannyML get the columns that a table can have: counts, expected quantities, confidence, brightness,
contrast, sharpness and shape. "Any" is an alarm if at least one column has drifted, "half" if half of the columns have
(Evidently's default for a data set).
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]

from benchmarks.disturbances import DISTURBANCES, STRENGTHS
from benchmarks.drift import Arrays, load_arrays, properties, reference_of, sample_of, select_photos, split_groups
from monitor.drift.judge import Verdict, judge

SIZES = (50, 200, 1000)
CATEGORIES = ("predicted", "expected")


def frame(photos: Arrays) -> pd.DataFrame:
    """One row for each photo."""
    columns = {signal.value: values for signal, values in properties(photos).items()}
    columns["confidence"] = photos["probabilities"].max(axis=1).astype(float)
    for name, values in zip(CATEGORIES, (photos["probabilities"].argmax(axis=1), photos["labels"]), strict=True):
        columns[name] = values.astype(str)
    return pd.DataFrame(columns)


def evidently(reference: pd.DataFrame, window: pd.DataFrame) -> tuple[bool, bool]:
    """Whether any column has drifted, and whether half of them have."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    numbers = [name for name in window.columns if name not in CATEGORIES]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=list(CATEGORIES))
    sets = [Dataset.from_pandas(data, data_definition=definition) for data in (window, reference)]
    metrics = Report([DataDriftPreset()]).run(*sets).dict()["metrics"]
    drifted = next(one["value"] for one in metrics if isinstance(one["value"], dict) and "share" in one["value"])
    return drifted["count"] > 0, drifted["share"] >= 0.5


def nannyml(reference: pd.DataFrame, window: pd.DataFrame) -> bool:
    """Whether any column raises an alert."""
    import nannyml as nml

    calculator = nml.UnivariateDriftCalculator(
        column_names=list(window.columns), treat_as_categorical=list(CATEGORIES), chunk_size=len(window)
    )
    results = calculator.fit(reference).calculate(window).filter(period="analysis").to_df()
    alerts = [column for column in results.columns if column[-1] == "alert"]
    return bool(results[alerts].to_numpy().any())


def alarms(reference: Arrays, window: Arrays) -> list[bool]:
    """The monitor, Evidently (any), Evidently (half), NannyML."""
    ours = any(one.verdict is Verdict.DRIFTED for one in judge(sample_of(window), reference_of(reference)))
    frames = frame(reference), frame(window)
    return [ours, *evidently(*frames), nannyml(*frames)]


def row(name: str, size: int, found: list[list[bool]]) -> str:
    cells = " | ".join(f"{share:.0%}" for share in np.array(found).mean(axis=0))
    return f"| {name} | {size} | {len(found)} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--undisturbed", type=int, default=100, help="windows of each size")
    parser.add_argument("--disturbed", type=int, default=10, help="windows of 200 of each disturbance")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    arrays = load_arrays(options.held_out)
    print("| photos are | size | windows | Binwatch | Evidently, any | Evidently, half | NannyML, any |")
    for size in SIZES:
        pairs = [split_groups(arrays, size, np.random.default_rng(seed)) for seed in range(options.undisturbed)]
        found = [
            alarms(select_photos(arrays, "none", rest), select_photos(arrays, "none", window)) for rest, window in pairs
        ]
        print(row("undisturbed", size, found), flush=True)
    validation, test = (np.flatnonzero(arrays["splits"] == split) for split in ("validation", "test"))
    reference = select_photos(arrays, "none", validation)
    for name in [f"{kind} {strength}" for kind in DISTURBANCES for strength in STRENGTHS]:
        random = np.random.default_rng(2)
        windows = [np.sort(random.choice(test, 200, replace=False)) for _ in range(options.disturbed)]
        print(
            row(name, 200, [alarms(reference, select_photos(arrays, name, window)) for window in windows]), flush=True
        )


if __name__ == "__main__":
    main()
