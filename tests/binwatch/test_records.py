"""Writing to the records, on SQLite and PostgreSQL: nothing is lost, counted twice or out of order."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from threading import Barrier
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import InternalError, OperationalError, StatementError

from binwatch.confusion import TruthSource
from binwatch.counts import class_of, outcome_of_difference
from binwatch.errors import MetadataReason, Reason
from binwatch.keys import bin_of_key
from binwatch.records.engine import connect, for_writing
from binwatch.records.models import Calibrations
from binwatch.records.settle_bins import PHOTO_COLUMNS, settle_bins
from binwatch.records.store import NewCount, NewExpectation, Store
from binwatch.records.tables import (
    Base,
    Bin,
    Comparison,
    ConfusionTotal,
    Count,
    CurrentComparison,
    Expectation,
    ExpectationTotal,
    PhotoTotal,
)

START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    """Return the time `minutes` after START."""
    return START + timedelta(minutes=minutes)


def count(key: str = "bin-images/00001.jpg", etag: str = "a", minutes: float = 0, **fields: Any) -> NewCount:
    """Return a count of 3 items, unless `fields` override it."""
    defaults = {"bucket": "binwatch", "model_version": "v1", "precision": "int8", "provider": "CPUExecutionProvider"}
    outcome: dict[str, Any] = {} if "reason" in fields else {"predicted": 3, "probabilities": [0.1, 0, 0, 0.9, 0, 0, 0]}
    return NewCount(**(defaults | outcome | {"key": key, "etag": etag, "modified_at": at(minutes)} | fields))


def expectation(quantity: int | None = 3, bin_id: str = "00001", minutes: float = 0, **fields: Any) -> NewExpectation:
    """Return an expected quantity from a metadata file."""
    defaults = {"bucket": "binwatch", "source": f"metadata/{bin_id}.json", "etag": f"e{minutes}"}
    return NewExpectation(**(defaults | {"quantity": quantity, "bin_id": bin_id, "modified_at": at(minutes)} | fields))


@pytest.fixture
def store(records_engine: Engine) -> Store:
    return Store(records_engine)


def rows(engine: Engine, table: type[Base], *order: Any) -> list[Any]:
    """Read all rows of a table."""
    with engine.connect() as connection:
        return list(connection.execute(select(table.__table__).order_by(*(order or table.__table__.primary_key))))


def row_count(engine: Engine, table: type[Base]) -> int:
    """Return the number of rows in a table."""
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def run_together(*works: Callable[[], Any]) -> list[Any]:
    """Run all calls at the same time, each in its own thread."""
    barrier = Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:
        barrier.wait(30)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def totals(engine: Engine) -> dict[str, dict[Any, Any]]:
    """Read the running totals without their times."""
    return {
        "photos": {(row.model_version, row.reason): row.photos for row in rows(engine, PhotoTotal)},
        "expectations": {row.reason: row.expectations for row in rows(engine, ExpectationTotal)},
        "comparisons": _comparisons(engine),
    }


def _comparisons(engine: Engine) -> dict[tuple[str, int, str], tuple[int, int, int, int]]:
    """Return count, absolute and squared errors and count within one item, by model, expected class and outcome."""
    result: dict[tuple[str, int, str], tuple[int, int, int, int]] = {}
    for row in rows(engine, ConfusionTotal):
        if row.reference == TruthSource.INVENTORY:
            error, n = row.predicted_class - row.true_class, row.comparisons
            cell = row.model_version, row.true_class, outcome_of_difference(error).value
            sums = result.get(cell, (0, 0, 0, 0))
            added = n, n * abs(error), n * error**2, n * (abs(error) <= 1)
            result[cell] = tuple(map(sum, zip(sums, added, strict=True)))  # type: ignore[assignment]
    return result


def assert_totals_follow_from_the_ledgers(engine: Engine) -> None:
    """Check the totals that can be recomputed. A failure that became a count stays counted as a failure, too."""
    result = totals(engine)
    recorded = Counter((row.model_version, row.reason or "") for row in rows(engine, Count))
    for (model, reason), photos in result["photos"].items():
        assert photos >= recorded[model, reason]
    assert {k: n for k, n in result["photos"].items() if not k[1]} == {k: n for k, n in recorded.items() if not k[1]}
    assert result["expectations"] == Counter(row.reason or "" for row in rows(engine, Expectation))
    sums: dict[Any, list[int]] = {}
    for row in rows(engine, Comparison):
        total = sums.setdefault((row.model_version, class_of(row.expected), row.outcome), [0, 0, 0, 0])
        for place, value in enumerate((1, abs(row.error), row.error**2, abs(row.error) <= 1)):
            total[place] += value
    assert result["comparisons"] == {key: tuple(total) for key, total in sums.items()}


def assert_compared(engine: Engine) -> None:
    """Check that each bin with a counted latest photo and a readable latest expectation has exactly one comparison."""
    counts = {row.id: row for row in rows(engine, Count)}
    expectations = {row.id: row for row in rows(engine, Expectation)}
    compared = Counter((row.count_id, row.expected) for row in rows(engine, Comparison))
    assert set(compared.values()) <= {1}
    for row in rows(engine, Bin):
        if row.count_id is None or row.expectation_id is None:
            continue
        if counts[row.count_id].reason is None and expectations[row.expectation_id].reason is None:
            assert compared[row.count_id, expectations[row.expectation_id].quantity] == 1, row


def test_a_count_is_recorded_unchanged(records_engine: Engine, store: Store) -> None:
    photo = count(
        "ordner/Käfig 1+%.jpg",
        etag="d41d8",
        version_id="v7",
        width=640,
        height=480,
        bytes=2**40,
        modified_at=datetime(2026, 11, 20, 10, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2))),
    )
    assert store.add_counts([photo]) == 1
    (row,) = rows(records_engine, Count)
    assert (row.bucket, row.key, row.bin_id, row.etag, row.version_id) == (
        "binwatch",
        "ordner/Käfig 1+%.jpg",
        "Käfig 1+%",
        "d41d8",
        "v7",
    )
    assert (row.predicted, row.probabilities) == (3, [0.1, 0, 0, 0.9, 0, 0, 0])
    assert (row.width, row.height, row.bytes, row.reason, row.detail) == (640, 480, 2**40, None, None)
    assert row.modified_at == datetime(2026, 11, 20, 8, 0, 0, 123456, tzinfo=UTC)
    assert row.modified_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - row.recorded_at) < timedelta(minutes=1)


def test_a_failure_is_recorded_with_its_reason(records_engine: Engine, store: Store) -> None:
    assert store.add_counts([count(reason=Reason.TRUNCATED, detail="the file ends early 📦")]) == 1
    (row,) = rows(records_engine, Count)
    assert (row.reason, row.detail, row.predicted, row.probabilities) == (
        "truncated",
        "the file ends early 📦",
        None,
        None,
    )
    assert totals(records_engine)["photos"] == {("v1", "truncated"): 1}


def test_recording_nothing_changes_nothing(store: Store, records_engine: Engine) -> None:
    assert store.add_counts([]) == 0
    assert store.add_expectations(iter(())) == 0
    assert totals(records_engine) == {"photos": {}, "expectations": {}, "comparisons": {}}


def test_check_fails_if_the_records_are_read_only(postgres_records: Engine) -> None:
    Store(postgres_records).check()
    read_only = postgres_records.url.update_query_dict({"options": "-c default_transaction_read_only=on"})
    engine = connect(read_only.render_as_string(hide_password=False))
    with pytest.raises(InternalError, match="read-only transaction"):
        Store(engine).check()
    engine.dispose()


def test_a_time_without_a_zone_is_refused(store: Store, records_engine: Engine) -> None:
    with pytest.raises(StatementError, match="has no time zone"):
        store.add_counts([count(modified_at=datetime(2026, 11, 20))])  # noqa: DTZ001
    assert row_count(records_engine, Count) == 0


@pytest.mark.parametrize(
    "key",
    ["ü.jpg", "u\u0308.jpg", "箱/📦.png", "a b+c%20.jpg", "'; drop table counts; --.jpg", "A.jpg", "a.jpg", "\\.jpg"],
)
def test_keys_are_kept_exactly(records_engine: Engine, store: Store, key: str) -> None:
    """Composed and decomposed letters differ, and so do upper and lower case."""
    store.add_counts([count(key), count("ü.jpg"), count("a.jpg")])
    store.add_counts([count(key)])
    assert {row.key for row in rows(records_engine, Count)} == {key, "ü.jpg", "a.jpg"}
    assert {row.bin_id for row in rows(records_engine, Bin)} == {bin_of_key(key), "ü", "a"}


def test_a_repeated_count_changes_nothing(records_engine: Engine, store: Store) -> None:
    assert store.add_counts([count(), count()]) == 1
    assert store.add_counts([count(predicted=5)]) == 0
    assert [row.predicted for row in rows(records_engine, Count)] == [3]
    assert totals(records_engine)["photos"] == {("v1", ""): 1}


def test_a_repeated_expectation_changes_nothing(records_engine: Engine, store: Store) -> None:
    assert store.add_expectations([expectation(4), expectation(4)]) == 1
    assert store.add_expectations([expectation(4)]) == 0
    assert totals(records_engine)["expectations"] == {"": 1}


def test_a_count_replaces_a_failure(records_engine: Engine, store: Store) -> None:
    store.add_expectations([expectation(3)])
    assert store.add_counts([count(reason=Reason.INFERENCE_FAILED, detail="out of memory")]) == 1
    assert row_count(records_engine, Comparison) == 0
    assert store.add_counts([count()]) == 1
    (row,) = rows(records_engine, Count)
    assert (row.reason, row.detail, row.predicted) == (None, None, 3)
    assert totals(records_engine)["photos"] == {("v1", ""): 1, ("v1", "inference_failed"): 1}
    assert_compared(records_engine)
    assert row_count(records_engine, Comparison) == 1


def test_a_failure_does_not_replace_a_count(records_engine: Engine, store: Store) -> None:
    store.add_counts([count()])
    assert store.add_counts([count(reason=Reason.INFERENCE_FAILED)]) == 0
    (row,) = rows(records_engine, Count)
    assert (row.reason, row.predicted) == (None, 3)
    assert totals(records_engine)["photos"] == {("v1", ""): 1}


@pytest.mark.parametrize("failure_first", [True, False])
def test_a_count_wins_over_a_failure_of_the_same_photo_in_one_call(
    records_engine: Engine, store: Store, failure_first: bool
) -> None:
    counts = [count(reason=Reason.INFERENCE_FAILED), count()]
    assert store.add_counts(counts if failure_first else counts[::-1]) == 1
    assert [row.predicted for row in rows(records_engine, Count)] == [3]


def test_a_late_count_of_a_failed_photo_is_compared(records_engine: Engine, store: Store) -> None:
    """The same bytes were uploaded twice: the second fetch failed, and the first count arrives late."""
    store.add_expectations([expectation(3)])
    store.add_counts([count(minutes=3, reason=Reason.INFERENCE_FAILED)])
    store.add_counts([count(minutes=1)])
    assert row_count(records_engine, Comparison) == 1
    assert_compared(records_engine)


def test_another_model_counts_again(records_engine: Engine, store: Store) -> None:
    store.add_expectations([expectation(3)])
    store.add_counts([count(model_version="v1")])
    assert store.add_counts([count(model_version="v2", predicted=2)]) == 1
    assert store.add_counts([count(model_version="v1")]) == 0  # late, by a worker that still uses the old model
    compared = [(row.model_version, row.outcome) for row in rows(records_engine, Comparison)]
    assert compared == [("v1", "exact"), ("v2", "under")]
    (bin_,) = rows(records_engine, Bin)
    assert bin_.count_id == rows(records_engine, Count)[1].id


@pytest.mark.parametrize("count_first", [True, False])
@pytest.mark.parametrize(
    ("predicted", "quantity", "error", "outcome"),
    [
        (3, 3, 0, "exact"),
        (2, 5, -3, "under"),
        (5, 1, 4, "over"),
        (6, 6, 0, "exact"),
        (6, 209, 0, "exact"),
        (5, 40, -1, "under"),
    ],
)
def test_comparison_of_count_and_quantity(
    records_engine: Engine, store: Store, predicted: int, quantity: int, error: int, outcome: str, count_first: bool
) -> None:
    steps = [
        lambda: store.add_counts([count(predicted=predicted)]),
        lambda: store.add_expectations([expectation(quantity)]),
    ]
    for step in steps if count_first else steps[::-1]:
        step()
    (row,) = rows(records_engine, Comparison)
    assert (row.predicted, row.expected, row.error, row.outcome, row.bin_id) == (
        predicted,
        quantity,
        error,
        outcome,
        "00001",
    )
    assert totals(records_engine)["comparisons"] == {
        ("v1", min(quantity, 6), outcome): (1, abs(error), error**2, int(abs(error) <= 1))
    }


def test_bins_of_two_buckets_are_separate(records_engine: Engine, store: Store) -> None:
    store.add_counts([count(bucket="north"), count(bucket="south")])
    store.add_expectations([expectation(3, bucket="north")])
    assert [row.bucket for row in rows(records_engine, Comparison)] == ["north"]
    assert row_count(records_engine, Bin) == 2


def test_a_newer_expectation_appends_a_comparison(records_engine: Engine, store: Store) -> None:
    store.add_counts([count()])
    store.add_expectations([expectation(4, minutes=1)])
    store.add_expectations([expectation(3, minutes=2)])
    assert [(row.expected, row.outcome) for row in rows(records_engine, Comparison)] == [(4, "under"), (3, "exact")]
    assert totals(records_engine)["comparisons"] == {
        ("v1", 4, "under"): (1, 1, 1, 1),
        ("v1", 3, "exact"): (1, 0, 0, 1),
    }


def test_a_repeated_quantity_appends_no_comparison(records_engine: Engine, store: Store) -> None:
    """From the same file a night later, from another file, and after another quantity for a while."""
    store.add_counts([count(predicted=3)])
    store.add_expectations([expectation(4, minutes=1)])
    once = totals(records_engine)["comparisons"]
    assert store.add_expectations([expectation(4, minutes=2), expectation(4, source="stock.csv", minutes=3)]) == 2
    assert totals(records_engine)["comparisons"] == once == {("v1", 4, "under"): (1, 1, 1, 1)}
    store.add_expectations([expectation(3, minutes=4)])
    assert store.add_expectations([expectation(4, minutes=5)]) == 1
    assert totals(records_engine)["comparisons"] == once | {("v1", 3, "exact"): (1, 0, 0, 1)}
    (now,) = rows(records_engine, CurrentComparison)
    (bin_,) = rows(records_engine, Bin)
    assert (now.expected, now.difference, now.comparison_id) == (4, -1, rows(records_engine, Comparison)[0].id)
    assert now.expectation_id == bin_.expectation_id == rows(records_engine, Expectation)[-1].id
    assert_compared(records_engine)
    store.add_counts([count(etag="b", minutes=6, predicted=3)])
    assert totals(records_engine)["comparisons"]["v1", 4, "under"] == (2, 2, 2, 2), "another photo is compared"


def test_an_older_expectation_appends_no_comparison(records_engine: Engine, store: Store) -> None:
    store.add_counts([count()])
    store.add_expectations([expectation(3, minutes=2)])
    assert store.add_expectations([expectation(4, minutes=1)]) == 1
    assert [row.expected for row in rows(records_engine, Comparison)] == [3]
    assert row_count(records_engine, Expectation) == 2


def test_an_older_photo_is_counted_but_not_compared(records_engine: Engine, store: Store) -> None:
    store.add_expectations([expectation(3)])
    store.add_counts([count(etag="b", minutes=2)])
    assert store.add_counts([count(etag="a", minutes=1, predicted=5)]) == 1
    assert [row.predicted for row in rows(records_engine, Comparison)] == [3]


def test_a_restored_photo_is_the_latest_again(records_engine: Engine, store: Store) -> None:
    """A, then B, then A again: the bin shows A although its count is old, and a new expectation is compared with A."""
    store.add_counts([count(etag="A", minutes=1, predicted=1)])
    store.add_counts([count(etag="B", minutes=2, predicted=2)])
    assert store.add_counts([count(etag="A", minutes=3, predicted=1)]) == 0
    (bin_,) = rows(records_engine, Bin)
    assert bin_.photo_at == at(3)
    assert [row.modified_at for row in rows(records_engine, Count)] == [at(3), at(2)]
    store.add_counts([count(etag="A", minutes=1, predicted=1)])  # late
    assert [row.modified_at for row in rows(records_engine, Count)] == [at(3), at(2)]
    store.add_expectations([expectation(1, minutes=4)])
    assert [row.predicted for row in rows(records_engine, Comparison)] == [1]


def test_unreadable_metadata_suspends_the_comparison(records_engine: Engine, store: Store) -> None:
    """The old quantity is no longer valid and the new one is unknown; the next readable one is compared."""
    store.add_expectations([expectation(4, minutes=1)])
    store.add_expectations([expectation(None, minutes=2, reason=MetadataReason.NOT_JSON, detail="not JSON")])
    store.add_counts([count()])
    assert row_count(records_engine, Comparison) == 0
    store.add_expectations([expectation(3, minutes=3)])
    assert [row.expected for row in rows(records_engine, Comparison)] == [3]
    assert totals(records_engine)["expectations"] == {"": 2, "not_json": 1}


@pytest.mark.parametrize("reason", ["missing", "forbidden"])
def test_a_failed_fetch_does_not_change_the_bin(records_engine: Engine, store: Store, reason: str) -> None:
    """The event's time may be later than S3's, so that a later successful count would not become the latest."""
    store.add_counts([count(minutes=1)])
    store.add_counts([count(etag="", minutes=5, reason=Reason(reason))])
    store.add_expectations([expectation(3, minutes=1)])
    store.add_expectations([expectation(None, minutes=5, etag="", reason=MetadataReason(reason))])
    (bin_,) = rows(records_engine, Bin)
    assert (bin_.photo_at, bin_.expected_at) == (at(1), at(1))
    assert row_count(records_engine, Comparison) == 1
    store.add_counts([count("other/00002.jpg", etag="", reason=Reason(reason))])
    assert row_count(records_engine, Bin) == 1


def test_the_largest_batch_is_recorded(records_engine: Engine, store: Store) -> None:
    keys = [f"bin-images/{i:05}.jpg" for i in range(256)]
    assert store.add_expectations([expectation(3, bin_id=bin_of_key(key)) for key in keys]) == 256
    assert store.add_counts([count(key) for key in keys]) == 256
    assert totals(records_engine)["comparisons"] == {("v1", 3, "exact"): (256, 0, 0, 256)}


def test_eight_threads_record_the_same_counts_once(records_engine: Engine, store: Store) -> None:
    photos = [count(f"{i:03}.jpg") for i in range(40)]
    store.add_expectations([expectation(3, bin_id=f"{i:03}") for i in range(40)])
    news = run_together(*[lambda start=start: store.add_counts(photos[start:] + photos[:start]) for start in range(8)])
    assert sum(news) == 40
    assert totals(records_engine)["photos"] == {("v1", ""): 40}
    assert totals(records_engine)["comparisons"] == {("v1", 3, "exact"): (40, 0, 0, 40)}


def test_eight_threads_record_the_same_expectations_once(records_engine: Engine, store: Store) -> None:
    store.add_counts([count(f"{i:03}.jpg") for i in range(40)])
    expectations = [expectation(3, bin_id=f"{i:03}") for i in range(40)]
    assert sum(run_together(*[lambda: store.add_expectations(expectations)] * 8)) == 40
    assert totals(records_engine)["comparisons"] == {("v1", 3, "exact"): (40, 0, 0, 40)}


PROGRAM = """
import sys
from datetime import UTC, datetime
from binwatch.records.engine import connect
from binwatch.records.store import NewCount, Store
store = Store(connect(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
new = 0
for start in range(0, 200, 10):
    new += store.add_counts(
        NewCount(bucket="binwatch", key=f"{i}.jpg", etag="a", model_version="v1", precision="int8", provider="CPU",
                 modified_at=datetime(2026, 11, 20, tzinfo=UTC), predicted=i % 7)
        for i in range(start, start + 10)
    )
print(new)
"""


def test_two_processes_record_the_same_counts_once(records_engine: Engine) -> None:
    url = records_engine.url.render_as_string(hide_password=False)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", PROGRAM, url], **pipes)) for _ in range(2)
        ]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        assert sum(int(process.communicate(timeout=60)[0]) for process in processes) == 200
        assert [process.returncode for process in processes] == [0, 0]
    assert totals(records_engine)["photos"] == {("v1", ""): 200}


def test_a_simultaneous_count_and_expectation_are_compared_once(records_engine: Engine, store: Store) -> None:
    """In either order there is exactly one comparison. The hardest case is a new bin."""
    for i in range(60):
        run_together(
            lambda i=i: store.add_counts([count(f"{i}.jpg")]),
            lambda i=i: store.add_expectations([expectation(3, bin_id=str(i))]),
        )
    assert sorted(int(row.bin_id) for row in rows(records_engine, Comparison)) == list(range(60))
    assert totals(records_engine)["comparisons"] == {("v1", 3, "exact"): (60, 0, 0, 60)}


def test_an_unchanged_bin_is_locked_too(postgres_records: Engine) -> None:
    """An older photo changes nothing, but the bin must not change while it is being settled."""
    Store(postgres_records).add_counts([count(minutes=2)])
    (bin_,) = rows(postgres_records, Bin)
    older = {("binwatch", "00001"): (at(1), bin_.count_id)}
    with postgres_records.begin() as holding, postgres_records.begin() as other:
        settle_bins(holding, older, PHOTO_COLUMNS, Calibrations(), at(3))
        with pytest.raises(OperationalError, match="could not obtain lock"):
            other.execute(select(Bin.bin_id).with_for_update(nowait=True))
    assert rows(postgres_records, Bin) == [bin_]


def test_overlapping_batches_in_opposite_order_do_not_deadlock(records_engine: Engine, store: Store) -> None:
    """The keys sort differently by collation (upper and lower case, umlauts), which is where deadlocks would occur."""
    names = [f"{letter}{i}" for i in range(6) for letter in "aBcDäÖ-_"]

    def count_all(names: Sequence[str], round_: int) -> None:
        store.add_counts([count(f"{name}.jpg", etag=str(round_), minutes=round_) for name in names])

    def expect_all(names: Sequence[str], round_: int) -> None:
        store.add_expectations([expectation(3, bin_id=name, minutes=round_) for name in names])

    for round_ in range(6):
        run_together(
            lambda r=round_: count_all(names, r),
            lambda r=round_: count_all(names[::-1], r),
            lambda r=round_: expect_all(names[10:], r),
            lambda r=round_: expect_all(names[::-1][10:], r),
            lambda r=round_: count_all(names[::2], r + 1),
            lambda r=round_: expect_all(names[1::2], r + 1),
        )
    assert_totals_follow_from_the_ledgers(records_engine)
    assert_compared(records_engine)


def test_a_failed_call_leaves_nothing_behind(records_engine: Engine, store: Store) -> None:
    bad = count("z.jpg", modified_at=datetime(2026, 11, 20))  # noqa: DTZ001
    with pytest.raises(StatementError):
        store.add_counts([count("a.jpg"), bad])
    assert row_count(records_engine, Count) == 0
    assert store.add_counts([count("a.jpg")]) == 1


# An upload is one (etag, time); its result may be a count or a failure, and may be delivered again.
UPLOADS = [("A", 1.0), ("B", 2.0), ("A", 3.0), ("C", 4.0)]
photo_steps = st.tuples(
    st.just("count"), st.sampled_from(["x", "y"]), st.sampled_from(UPLOADS), st.sampled_from(["ok", "ok", "failed"])
)
expectation_steps = st.tuples(
    st.just("expect"),
    st.sampled_from(["x", "y"]),
    st.sampled_from([1.0, 2.0, 3.0]),
    st.sampled_from([0, 3, 6, 40, None]),
)
steps_of_any_order = st.lists(photo_steps | expectation_steps, min_size=1, max_size=12)
PREDICTED = {"A": 1, "B": 3, "C": 6}


def _as_new(step: tuple[Any, ...]) -> NewCount | NewExpectation:
    kind, bin_id, what, how = step
    if kind == "count":
        etag, minutes = what
        if how == "failed":
            return count(f"{bin_id}.jpg", etag, minutes, reason=Reason.INFERENCE_FAILED)
        return count(f"{bin_id}.jpg", etag, minutes, predicted=PREDICTED[etag])
    # The content of a metadata file is fixed: the quantity is part of its identity, the ETag.
    reason = {"reason": MetadataReason.NOT_JSON} if how is None else {}
    return expectation(how, bin_id, what, etag=str(how), modified_at=at(what + (how or 0) / 100), **reason)


def _apply(store: Store, groups: Sequence[Sequence[NewCount | NewExpectation]]) -> None:
    for group in groups:
        store.add_counts([item for item in group if isinstance(item, NewCount)])
        store.add_expectations([item for item in group if isinstance(item, NewExpectation)])


def _empty(engine: Engine) -> None:
    with for_writing(engine).begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())


def _state(engine: Engine) -> dict[str, Any]:
    """Read everything that must not depend on the order of arrival, with keys instead of row ids."""
    counts = {row.id: (row.key, row.etag, row.reason, row.predicted, row.modified_at) for row in rows(engine, Count)}
    expectations = {
        row.id: (row.bin_id, row.etag, row.modified_at, row.quantity, row.reason) for row in rows(engine, Expectation)
    }
    return {
        "counts": sorted(counts.values(), key=repr),
        "expectations": sorted(expectations.values(), key=repr),
        "bins": [
            (row.bin_id, row.photo_at, counts.get(row.count_id), row.expected_at, expectations.get(row.expectation_id))
            for row in rows(engine, Bin)
        ],
        "counted": {key: n for key, n in totals(engine)["photos"].items() if not key[1]},
        "expectation totals": totals(engine)["expectations"],
    }


def _grouped(items: Sequence[Any], data: st.DataObject) -> list[list[Any]]:
    groups: list[list[Any]] = [[]]
    for item in items:
        if data.draw(st.booleans()):
            groups.append([])
        groups[-1].append(item)
    return groups


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps_of_any_order, st.data())
def test_the_order_of_arrival_does_not_matter(
    records_engine: Engine, steps: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    store = Store(records_engine)
    items = [_as_new(step) for step in steps]
    _empty(records_engine)
    _apply(store, [[item] for item in items])
    assert_totals_follow_from_the_ledgers(records_engine)
    assert_compared(records_engine)
    expected = _state(records_engine)

    repeated = items + data.draw(st.lists(st.sampled_from(items), max_size=4))
    shuffled = data.draw(st.permutations(repeated))
    _empty(records_engine)
    _apply(store, _grouped(shuffled, data))
    assert_totals_follow_from_the_ledgers(records_engine)
    assert_compared(records_engine)
    assert _state(records_engine) == expected


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps_of_any_order)
@example([("count", "x", ("A", 3.0), "failed"), ("count", "x", ("A", 1.0), "ok"), ("expect", "x", 1.0, 3)])
def test_counters_never_decrease(records_engine: Engine, steps: list[tuple[Any, ...]]) -> None:
    store = Store(records_engine)
    _empty(records_engine)
    before = totals(records_engine)
    for step in steps:
        _apply(store, [[_as_new(step)]])
        now = totals(records_engine)
        for name, labelled in before.items():
            for labels, value in labelled.items():
                assert now[name][labels] >= value
        before = now
