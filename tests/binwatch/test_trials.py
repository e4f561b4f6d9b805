"""What is begun is noted until it ends, for each object by itself, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from binwatch.records.crash_counts import Trials


def test_each_beginning_without_an_end_is_counted(records_engine: Engine) -> None:
    trials = Trials(records_engine)
    assert [trials.begin("bins", "a ü.jpg") for _ in range(3)] == [0, 1, 2]
    assert trials.begin("bins", "b.jpg") == 0
    assert trials.begin("others", "a ü.jpg") == 0
    trials.end("bins", "a ü.jpg")
    assert [trials.begin("bins", "a ü.jpg"), trials.begin("bins", "b.jpg")] == [0, 1]


def test_the_end_of_what_was_never_begun(records_engine: Engine) -> None:
    Trials(records_engine).end("bins", "a.jpg")
    assert Trials(records_engine).begin("bins", "a.jpg") == 0


def test_what_was_begun_lately(records_engine: Engine) -> None:
    trials, before = Trials(records_engine), datetime.now(UTC)
    for bucket, key in (("bins", "a.jpg"), ("bins", "b.jpg"), ("others", "c.jpg")):
        trials.begin(bucket, key)
    trials.end("bins", "b.jpg")
    assert trials.recent("bins", before) == {"a.jpg"}
    assert trials.recent("bins", datetime.now(UTC) + timedelta(seconds=1)) == set()


def test_beginnings_at_the_same_moment(records_engine: Engine) -> None:
    trials = Trials(records_engine)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda _: trials.begin("bins", "a.jpg"), range(40))
    assert sorted(found) == list(range(40))
