"""Duration of a scrape, of computing drift and of recording 32 photos, with few records and with many.

    python -m benchmarks.scrape DATABASE_URL --photos 10000
    python -m benchmarks.scrape DATABASE_URL --photos 10000000

With `--slices N`, the photos belong to N slices, and each slice has comparisons in all cells of its confusion matrix.

DATABASE_URL must name an empty PostgreSQL database. Photos of the last seven days, counted by one model, are written by
SQL, with probabilities, properties and an embedding of 64 values; one in ten is compared. The totals match these
records.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import Engine, text

from benchmarks.timing import milliseconds, p95
from binwatch.cores import usable_cores
from binwatch.embedding import pack
from binwatch.records.engine import connect
from binwatch.records.migrate import migrate
from binwatch.records.slices import Slices
from binwatch.records.store import NewCount, Store
from binwatch.settings import load_settings
from binwatch.slicing import Slicing
from testing.services.monitor import serving_monitor

CHUNK_PHOTOS = 500_000
MODEL = "bench-1"
COUNTS = """
    INSERT INTO counts (bucket, key, etag, bin_id, model_version, precision, provider, predicted, probabilities, width,
        height, bytes, brightness, contrast, sharpness, embedding, modified_at, recorded_at, slice_id)
    SELECT 'bins', 'bin-images/' || i || '.jpg', md5(i::text), i::text, :model, 'int8', 'CPUExecutionProvider', i % 7,
        '[0.1, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1]', 640, 480, 40000 + i % 1000, 0.4, 0.2, 0.1,
        decode(repeat('003c', 64), 'hex'), now() - interval '7 days' * (1 - i::float / :photos),
        now() - interval '7 days' * (1 - i::float / :photos),
        (SELECT min(id) FROM slices) + i % NULLIF(CAST(:slices AS bigint), 0)
    FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS i
"""
EXPECTATIONS = """
    INSERT INTO expectations (bucket, bin_id, source, etag, quantity, modified_at, recorded_at)
    SELECT 'bins', bin_id, 'stock.csv', 'e', id % 7, modified_at, recorded_at
    FROM counts WHERE id BETWEEN :first AND :last AND id % 10 = 0
"""
COMPARISONS = """
    INSERT INTO comparisons (bucket, bin_id, count_id, expectation_id, model_version, predicted, expected, error,
        outcome, compared_at)
    SELECT c.bucket, c.bin_id, c.id, e.id, c.model_version, c.predicted, e.quantity, c.predicted - e.quantity,
        CASE WHEN c.predicted = e.quantity THEN 'exact' WHEN c.predicted < e.quantity THEN 'under' ELSE 'over' END,
        c.recorded_at
    FROM counts c JOIN expectations e USING (bucket, bin_id)
    WHERE c.id BETWEEN :first AND :last AND c.id % 10 = 0
"""
TOTALS = (
    "INSERT INTO photo_totals SELECT model_version, '', count(*), now() FROM counts GROUP BY model_version",
    """INSERT INTO confusion_totals SELECT 'inventory', model_version, least(expected, 6), predicted, count(*), now()
        FROM comparisons GROUP BY 2, 3, 4""",
    """INSERT INTO slice_photo_totals SELECT slice_id, model_version, '', count(*), now()
        FROM counts WHERE slice_id IS NOT NULL GROUP BY 1, 2""",
    """INSERT INTO slice_confusion_totals SELECT id, 'bench-1', expected, predicted, 1000, now()
        FROM slices, generate_series(0, 6) AS expected, generate_series(0, 6) AS predicted""",
)
SLICING = Slicing(re.compile("^(slice-[0-9]+)/"))


def fill(engine: Engine, photos: int, slices: int) -> None:
    """Write the records."""
    if slices:
        Slices(engine, SLICING).ids(f"slice-{number}/" for number in range(slices))
    for first in range(1, photos + 1, CHUNK_PHOTOS):
        values = {
            "model": MODEL,
            "photos": photos,
            "slices": slices,
            "first": first,
            "last": min(first + CHUNK_PHOTOS - 1, photos),
        }
        with engine.begin() as connection:
            connection.execute(text(COUNTS), values)
            for statement in (EXPECTATIONS, COMPARISONS):
                connection.execute(text(statement), {name: values[name] for name in ("first", "last")})
        print(f"{values['last']:,} photos", flush=True)
    with engine.begin() as connection:
        for statement in TOTALS:
            connection.execute(text(statement))
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))


def show_duration(name: str, work: Callable[[], object], rounds: int) -> None:
    """Print median and 95th percentile, in milliseconds."""
    durations = milliseconds(work, rounds)
    print(f"| {name} | {statistics.median(durations):.1f} | {p95(durations):.1f} | {rounds} |", flush=True)


def make_recorder(engine: Engine, slicing: Slicing | None) -> Callable[[], object]:
    """A function that records 32 new photos, each of a different slice."""
    store, embedding = Store(engine, slicing=slicing), pack(np.ones(64, np.float32))
    numbers = iter(range(10**9))

    def record() -> int:
        return store.add_counts(
            NewCount(
                bucket="bins",
                key=f"slice-{number}/{time.time_ns()}-{next(numbers)}.jpg",
                etag="e",
                model_version=MODEL,
                precision="int8",
                provider="CPUExecutionProvider",
                modified_at=datetime.now(UTC),
                predicted=3,
                probabilities=[0.1, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1],
                embedding=embedding,
            )
            for number in range(32)
        )

    return record


def measure(url: str, engine: Engine, slices: int) -> None:
    """Start a monitor, and measure it and the recording of photos."""
    os.environ["BINWATCH_DATABASE_URL"] = url
    if slices:
        os.environ["BINWATCH_SLICE_PATTERN"] = SLICING.rule
    settings = load_settings()
    with serving_monitor(settings) as (services, client):
        print("| what | median, ms | p95, ms | rounds |\n| --- | --- | --- | --- |")
        services.drift.update()
        services.flags.update()
        show_duration("scrape, drift figures included", lambda: client.get("/metrics").raise_for_status(), 200)
        show_duration("look for drift (four windows)", services.drift.update, 10)
        show_duration("record 32 photos", make_recorder(engine, settings.slicing), 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--slices", type=int, default=0)
    options = parser.parse_args()
    engine = connect(options.url)
    migrate(engine)
    fill(engine, options.photos, options.slices)
    print(f"\n{options.photos:,} photos, {options.slices} slices, PostgreSQL, {usable_cores()} cores")
    measure(options.url, engine, options.slices)


if __name__ == "__main__":
    main()
