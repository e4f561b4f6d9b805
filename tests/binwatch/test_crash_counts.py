"""Crash counts: starts of each object are counted until it is finished. On both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from binwatch.records.crash_counts import CrashCounts


def test_starts_without_an_end_are_counted_per_object(records_engine: Engine) -> None:
    crash_counts = CrashCounts(records_engine)
    assert [crash_counts.begin("bins", "a ü.jpg") for _ in range(3)] == [0, 1, 2]
    assert crash_counts.begin("bins", "b.jpg") == 0
    assert crash_counts.begin("others", "a ü.jpg") == 0
    crash_counts.end("bins", "a ü.jpg")
    assert [crash_counts.begin("bins", "a ü.jpg"), crash_counts.begin("bins", "b.jpg")] == [0, 1]


def test_ending_an_object_that_was_never_started_changes_nothing(records_engine: Engine) -> None:
    CrashCounts(records_engine).end("bins", "a.jpg")
    assert CrashCounts(records_engine).begin("bins", "a.jpg") == 0


def test_started_since_returns_recent_unfinished_objects(records_engine: Engine) -> None:
    crash_counts, before = CrashCounts(records_engine), datetime.now(UTC)
    for bucket, key in (("bins", "a.jpg"), ("bins", "b.jpg"), ("others", "c.jpg")):
        crash_counts.begin(bucket, key)
    crash_counts.end("bins", "b.jpg")
    assert crash_counts.started_since("bins", before) == {"a.jpg"}
    assert crash_counts.started_since("bins", datetime.now(UTC) + timedelta(seconds=1)) == set()


def test_concurrent_starts_are_all_counted(records_engine: Engine) -> None:
    crash_counts = CrashCounts(records_engine)
    with ThreadPoolExecutor(8) as pool:
        counts = pool.map(lambda _: crash_counts.begin("bins", "a.jpg"), range(40))
    assert sorted(counts) == list(range(40))
