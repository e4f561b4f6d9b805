"""Duration of a random draw with a million bins in PostgreSQL, including just after a change of model.

    python -m benchmarks.draws [--bins 1000000] [--rounds 100]

The records are those of benchmarks.pages. Then a new model counts one photo, and a thousand more. Finally, the index of
counts by model is dropped.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Engine

from benchmarks.pages import fill
from benchmarks.timing import milliseconds, p95
from binwatch.cores import usable_cores
from binwatch.records.draws import draw
from binwatch.records.engine import connect
from binwatch.records.store import NewCount, Store
from testing.services.postgres import running_postgres

PROBABILITIES = [0.01, 0.01, 0.9, 0.05, 0.01, 0.01, 0.01]


def record_counts(engine: Engine, bins: Iterable[int]) -> None:
    """Record counts of existing bins by a new model."""
    counts = [
        NewCount(
            bucket="bins", key=f"bin-images/{number:07}.jpg", etag="new", model_version="bench-3", precision="int8",
            provider="CPUExecutionProvider", modified_at=datetime.now(UTC), predicted=2, probabilities=PROBABILITIES,
        )
        for number in bins
    ]  # fmt: skip
    Store(engine).add_counts(counts)


def measure(engine: Engine, state: str, rounds: int) -> None:
    """Print median, 95th percentile and maximum."""
    durations = milliseconds(lambda: draw(engine), rounds)
    print(f"| {state} | {statistics.median(durations):.0f} | {p95(durations):.0f} | {max(durations):.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bins", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    with running_postgres() as postgres:
        engine = connect(postgres.url("postgres"))
        fill(engine, options.bins)
        print(f"\n{options.bins:,} bins, PostgreSQL, {usable_cores()} cores, in milliseconds\n")
        print("| the model in use has counted | median | p95 | max |\n| --- | --- | --- | --- |")
        measure(engine, "60 % of the bins", options.rounds)
        record_counts(engine, [2])
        measure(engine, "one photo", options.rounds)
        record_counts(engine, range(3, 1003))
        measure(engine, "1,001 photos", options.rounds)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP INDEX ix_counts_model")
        measure(engine, "1,001 photos, without the index", options.rounds)
        engine.dispose()


if __name__ == "__main__":
    main()
