"""Data of pages and API: ranking and filters, bin details, time series, models and drift."""

from __future__ import annotations

import csv
import io
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select, update

from binwatch.bundle import Bundle, Calibration, Precision, Reference
from binwatch.counts import Outcome, Suspicion
from binwatch.errors import MetadataReason, Reason
from binwatch.records.audits import AuditAnswer, UnknownBin
from binwatch.records.store import Store
from binwatch.records.tables import ComparisonHour, Count, PhotoHour
from binwatch.records.totals import start_of_hour
from binwatch.settings import DEFAULT_MODEL
from monitor.views.bins import MAX_HISTORY_ROWS, read_bin
from monitor.views.discrepancies import (
    Direction,
    Filters,
    read_discrepancies,
    read_level,
    read_neighbours,
)
from monitor.views.models import read_models
from monitor.views.overview import TimeRange, read_overview, read_trend
from monitor.views.paging import BadCursor
from tests.calibrations import UP_TO_20, category
from tests.monitor.conftest import Recorder, Running
from tests.monitor.drifting import BUCKET, DAY, MODEL
from tests.monitor.html import Parsed

ALPHA = 0.1


@pytest.fixture
def ranked(recorder: Recorder) -> Recorder:
    """Record bins with p-values (0.06 if different, 1 if equal), two bins of an uncalibrated model, and two audits."""
    recorder.calibrate()
    for bin_id, predicted, expected in (
        ("agrees", 2, 2),
        ("under", 1, 4),
        ("over", 5, 2),
        ("over-more", 6, 0),
        ("50%_off", 1, 2),
    ):
        recorder.pair(bin_id, predicted, expected)
    recorder.pair("old-agrees", 3, 3, model="older")
    recorder.pair("old-over", 4, 3, model="older")
    recorder.audit("over", 2)
    recorder.audit("agrees", 2)
    return recorder


def _bins(engine: Engine, filters: Filters, alpha: float = ALPHA) -> list[str]:
    with engine.connect() as connection:
        return [item.bin_id for item in read_discrepancies(connection, filters, alpha).items]


@pytest.mark.parametrize(
    ("filters", "bins"),
    [
        (Filters(), ["under", "over", "over-more", "50%_off", "old-over"]),
        (Filters(direction=Direction.MISSING), ["under", "50%_off"]),
        (Filters(direction=Direction.SURPLUS), ["over", "over-more", "old-over"]),
        (Filters(direction=Direction.EXACT), ["agrees", "old-agrees"]),
        (Filters(direction=Direction.ALL, prefix="old"), ["old-over", "old-agrees"]),
        (Filters(direction=Direction.ALL, size=1, prefix="old"), ["old-over"]),
        (Filters(size=3), ["under", "over", "over-more"]),
        (Filters(size=3, direction=Direction.MISSING), ["under"]),
        (Filters(size=6), ["over-more"]),
        (Filters(audited=True), ["over"]),
        (Filters(answer=AuditAnswer.COUNT, size=3), ["over"]),
        (Filters(answer=AuditAnswer.CANNOT_TELL), []),
        (Filters(audited=False, size=3), ["under", "over-more"]),
        (Filters(model="older"), ["old-over"]),
        (Filters(flagged=True), ["under", "over", "over-more", "50%_off"]),
        (Filters(prefix="over"), ["over", "over-more"]),
        (Filters(prefix="50%_"), ["50%_off"]),
        (Filters(prefix="%"), []),
        (Filters(prefix="bin-images/over"), ["over", "over-more"]),
        (Filters(prefix="elsewhere/"), []),
        (Filters(since=DAY), ["under", "over", "over-more", "50%_off", "old-over"]),
        (Filters(since=DAY + timedelta(seconds=1)), []),
        (Filters(until=DAY), []),
    ],
)
def test_filters(ranked: Recorder, filters: Filters, bins: list[str]) -> None:
    assert _bins(ranked.engine, filters) == bins


def test_the_oddest_bins_come_first_on_both_databases(records_engine: Engine) -> None:
    recorder = Recorder(records_engine)
    recorder.pair("uncalibrated", 1, 2, model="older")
    recorder.calibrate()
    recorder.pair("b", 1, 2)
    recorder.pair("a", 1, 3)
    with records_engine.connect() as connection:
        page = read_discrepancies(connection, Filters(), ALPHA)
        assert [item.bin_id for item in page.items] == ["b", "a", "uncalibrated"]
        assert [item.p_value for item in page.items] == [0.06, 0.06, None]
        assert [item.flagged for item in page.items] == [True, True, False]
        assert [item.chance for item in page.items] == [0.05, 0.05, 0.05]
        first = read_discrepancies(connection, Filters(prefix="u"), ALPHA)
        assert [item.bin_id for item in first.items] == ["uncalibrated"]
        assert read_level(connection, ALPHA).model_dump() == {
            "alpha": ALPHA,
            "direction": "either",
            "compared": 3,
            "calibrated": 2,
            "flagged": 2,
            "unaudited": 2,
            "false_flags": pytest.approx(0.2),
            "checked": 0,
            "inventory_wrong": 0,
        }


def test_a_certain_quantity_differs_from_one_the_model_cannot_predict(records_engine: Engine) -> None:
    """Neither has a p-value here."""
    recorder = Recorder(records_engine)
    recorder.count("bin-images/certain.jpg", 3, certain=True)
    recorder.expect("certain", 3)
    recorder.calibrate("some", classes=(1, 2, 3, 4, 5))
    recorder.pair("never", 3, 0, model="some")
    with records_engine.connect() as connection:
        first = read_discrepancies(connection, Filters(direction=Direction.ALL), ALPHA, limit=1)
        last = read_discrepancies(connection, Filters(direction=Direction.ALL), ALPHA, limit=1, after=first.next)
        previous = read_discrepancies(connection, Filters(direction=Direction.ALL), ALPHA, before=last.previous)
        standings = [read_bin(connection, BUCKET, name, ALPHA).standing for name in ("certain", "never")]
    result = [(item.bin_id, item.chance) for page in (first, last, previous) for item in page.items]
    assert result == [("certain", 1.0), ("never", None), ("certain", 1.0)]
    assert [item.chance for item in standings if item] == [1.0, None]


def test_an_audit_of_a_repeated_quantity_counts_towards_flag_precision(recorder: Recorder) -> None:
    recorder.calibrate()
    recorder.pair("a", 1, 3)
    recorder.expect("a", 3)
    recorder.audit("a", 1)
    with recorder.engine.connect() as connection:
        level = read_level(connection, ALPHA)
    assert (level.flagged, level.checked, level.inventory_wrong) == (1, 1, 1)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 9), st.sampled_from([Direction.EITHER, Direction.ALL, Direction.SURPLUS]))
def test_paging_shows_every_bin_once_in_both_directions(ranked: Recorder, limit: int, direction: Direction) -> None:
    filters = Filters(direction=direction)
    all_bins = _bins(ranked.engine, filters)
    with ranked.engine.connect() as connection:
        pages = [read_discrepancies(connection, filters, ALPHA, limit)]
        assert pages[0].previous is None
        while pages[-1].next:
            pages.append(read_discrepancies(connection, filters, ALPHA, limit, after=pages[-1].next))
        assert [item.bin_id for page in pages for item in page.items] == all_bins
        previous = pages[-1]
        for page in reversed(pages[:-1]):
            assert previous.previous is not None
            previous = read_discrepancies(connection, filters, ALPHA, limit, before=previous.previous)
            assert [item.id for item in previous.items] == [item.id for item in page.items]
            assert previous.next is not None
        assert previous.previous is None


@pytest.mark.parametrize(
    "cursor", ["x", "é", "", "MQ", "bmFuIDAgMQ", "MSAxIDk5OTk5OTk5OTk5OTk5OTk5OTk5OTk", "LTEgMCAx", "MCAwIDA"]
)
def test_invalid_cursors_are_refused(ranked: Recorder, cursor: str) -> None:
    with ranked.engine.connect() as connection, pytest.raises(BadCursor, match="is not a cursor"):
        read_discrepancies(connection, Filters(), ALPHA, after=cursor)


def test_neighbours_follow_the_list(ranked: Recorder) -> None:
    with ranked.engine.connect() as connection:
        filters = Filters(audited=False)
        walked = ["under"]
        while following := read_neighbours(connection, filters, ALPHA, BUCKET, walked[-1]).next:
            walked.append(following.bin_id)
        assert walked == ["under", "over-more", "50%_off", "old-over"]
        audited = read_neighbours(connection, filters, ALPHA, BUCKET, "over")
        assert (audited.previous, audited.next) == (
            read_neighbours(connection, filters, ALPHA, BUCKET, "over-more").previous,
            read_neighbours(connection, filters, ALPHA, BUCKET, "under").next,
        )
        stranger = read_neighbours(connection, filters, ALPHA, BUCKET, "never compared")
        assert (stranger.previous, stranger.next and stranger.next.bin_id) == (None, "under")


def test_details_of_a_bin(ranked: Recorder) -> None:
    ranked.expect("over", 9, at=DAY + timedelta(hours=1))
    ranked.count("bin-images/over.jpg", reason=Reason.CORRUPT, detail="damaged", model="newest")
    with ranked.engine.connect() as connection:
        details = read_bin(connection, BUCKET, "over", ALPHA)
    assert details.photo is not None
    assert (details.photo.reason, details.photo.can_be_shown, details.probabilities) == ("corrupt", False, [])
    assert details.standing is None
    assert details.expected is not None
    assert (details.expected.quantity, details.expected.items) == (9, None)
    assert [photo.is_latest for photo in details.photos] == [True, False]
    assert [item.quantity for item in details.quantities] == [9, 2]
    (audit,) = details.audits
    assert (audit.of_count, audit.of_inventory, audit.of_latest_photo) == (Outcome.OVER, Outcome.EXACT, False)
    assert details.audit is None


def test_probabilities_of_a_bin(ranked: Recorder) -> None:
    with ranked.engine.connect() as connection:
        details = read_bin(connection, BUCKET, "over-more", ALPHA)
        assert details.standing is not None
        assert (details.standing.difference, details.standing.p_value, details.standing.flagged) == (6, 0.06, True)
        probabilities = [
            (item.label, item.probability, item.is_count, item.is_expected) for item in details.probabilities
        ]
        assert probabilities[0] == ("0", 0.05, False, True)
        assert probabilities[6] == ("more than 5", 0.7, True, False)
        with pytest.raises(UnknownBin, match="'nobody'"):
            read_bin(connection, BUCKET, "nobody", ALPHA)


def test_the_history_of_a_bin_is_limited(recorder: Recorder) -> None:
    """The latest photo is included even if older uploads were recorded after it."""
    recorder.count("bin-images/a.jpg", 1)
    for number in range(MAX_HISTORY_ROWS + 5):
        recorder.count("older/a.jpg", 2, at=DAY - timedelta(days=1 + number))
    with recorder.engine.connect() as connection:
        details = read_bin(connection, BUCKET, "a", ALPHA)
    assert details.photo is not None
    assert (details.photo.predicted, details.photo.is_latest) == (1, True)
    assert len(details.photos) == MAX_HISTORY_ROWS + 1


def test_time_series(recorder: Recorder) -> None:
    """Three hours: two photos by an older model, none, then four by the model in use."""
    recorder.pair("a", 1, 1, model="older")
    recorder.pair("b", 1, 2, model="older")
    hour = start_of_hour(datetime.now(UTC))
    with recorder.engine.begin() as connection:
        for table in (ComparisonHour, PhotoHour):
            connection.execute(update(table).values(hour=hour - timedelta(hours=2)))
    for bin_id, expected in zip("cdef", (2, 2, 3, 1), strict=True):
        recorder.pair(bin_id, 2, expected)
    with recorder.engine.begin() as connection:
        for table in (ComparisonHour, PhotoHour):  # regardless of the clock
            connection.execute(update(table).where(table.model_version == MODEL).values(hour=hour))
    reference = Reference(photos=9, predicted=[], labels=[], confidence=[], reliability=[(0.2, 0.1), (0.7, 0.4)])
    with recorder.engine.connect() as connection:
        now = hour + timedelta(minutes=30)
        trend = read_trend(connection, TimeRange.DAY, {MODEL: reference}.get, now)
    assert len(trend.buckets) == 24
    assert all(after.start == before.end for before, after in itertools.pairwise(trend.buckets))
    assert trend.end == hour + timedelta(hours=1)
    older, nothing, newer = trend.buckets[-3:]
    assert (older.comparisons, older.agreement, older.under, older.model) == (2, 0.5, 1, "older")
    assert older.estimated == pytest.approx(0.7), "without a reference, the model's own confidence"
    assert (nothing.comparisons, nothing.agreement, nothing.estimated, nothing.interval) == (0, None, None, None)
    assert (newer.comparisons, newer.exact, newer.under, newer.over, newer.photos) == (4, 2, 1, 1, 4)
    assert newer.estimated == pytest.approx(0.4), "the accuracy of the reference photos at this confidence"
    (change,) = trend.changes
    assert (change.at, change.model, change.previous) == (newer.start, MODEL, "older")


@pytest.mark.parametrize("span", TimeRange)
def test_time_series_of_every_range_end_now(known_records: Recorder, span: TimeRange) -> None:
    with known_records.engine.connect() as connection:
        trend = read_trend(connection, span, lambda _: None)
    assert trend.buckets[-1].comparisons + trend.buckets[-2].comparisons == 6
    assert trend.start == trend.buckets[0].start
    assert trend.end == trend.buckets[-1].end > datetime.now(UTC)


def test_the_overview_of_known_records(known_records: Recorder) -> None:
    known_records.audit("f", None, answer=AuditAnswer.CANNOT_TELL)
    with known_records.engine.connect() as connection:
        overview = read_overview(connection, None, lambda _: None, ALPHA)
    assert overview.backlog.model_dump() == {
        "flagged": 0,
        "photo_without_quantity": 2,
        "quantity_without_photo": 1,
        "failed_photos": 2,
        "cannot_tell": 1,
        "go_and_count": 0,
        "variances": 1,
    }
    assert (overview.level.compared, overview.level.calibrated) == (6, 0)
    assert overview.latest[0].bin_id == "i"
    assert overview.summary.agreement.total.exact == 3


def test_figures_of_a_model_are_of_the_variant_in_use(ranked: Recorder) -> None:
    card = Bundle(DEFAULT_MODEL).card
    assert card.variants[Precision.INT8].metrics["test"]["accuracy"] != card.metrics["test"].accuracy.model_dump()
    with ranked.engine.connect() as connection:
        (used, *_) = read_models(connection, lambda _: card, None).models
        assert used.in_use
        assert used.card is not None
        (precision,) = connection.execute(select(Count.precision).order_by(Count.id.desc()).limit(1)).scalars()
    assert used.card.measured == precision == "int8"
    metrics = used.card.metrics["test"]
    assert metrics.accuracy.model_dump() == card.variants[Precision.INT8].metrics["test"]["accuracy"]
    assert (metrics.photos, metrics.majority_accuracy) == (1192, card.metrics["test"].majority_accuracy)
    assert metrics.confusion == []
    assert card.metrics_of("fp32") == card.metrics


def test_models_with_their_confusion_matrices(ranked: Recorder) -> None:
    with ranked.engine.connect() as connection:
        models = read_models(connection, lambda _: None, None).models
    assert [(model.version, model.in_use) for model in models] == [("older", True), (MODEL, False)]
    newer = models[1]
    assert newer.first_at is not None
    rows = newer.against_inventory.rows
    assert newer.against_inventory.total == 5
    assert (rows[4][1], rows[2][5], rows[2][2], rows[0][6]) == (1, 1, 1, 1)
    assert newer.against_audits.total == 2
    assert newer.against_audits.rows[2][5] == 1
    assert newer.audits.counts.comparisons == 2
    assert newer.card is None


def test_the_csv_equals_the_list(ranked: Recorder, monitor: Running) -> None:
    ranked.pair("=HYPERLINK(1)", 1, 4)
    answer = monitor.get("/api/discrepancies.csv?alpha=0.1")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="discrepancies.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    listed = monitor.get("/api/discrepancies?alpha=0.1").json()["items"]
    assert [row["bin"].removeprefix("'") for row in rows] == [item["bin_id"] for item in listed]
    by_bin = {row["bin"]: row for row in rows}
    assert "'=HYPERLINK(1)" in by_bin, "bin ids are escaped for spreadsheets"
    over = by_bin["over"]
    assert (over["expected"], over["difference"], over["p_value"], over["flagged"], over["audited"]) == (
        "2",
        "3",
        "0.06",
        "1",
        "2",
    )


def test_the_api_pages_through_the_list(ranked: Recorder, monitor: Running) -> None:
    first = monitor.get("/api/discrepancies?limit=2").json()
    second = monitor.get(f"/api/discrepancies?limit=2&after={first['next']}").json()
    repeated = monitor.get(f"/api/discrepancies?limit=2&before={second['previous']}").json()
    assert repeated["items"] == first["items"]
    assert {item["id"] for item in first["items"]}.isdisjoint(item["id"] for item in second["items"])


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "alpha=0",
        "alpha=nan",
        "size=7",
        "direction=sideways",
        "since=yesterday",
        "since=2026-01-01",
        "audited=perhaps",
        f"after={'a' * 201}",
        f"prefix={'a' * 1025}",
        "colour=red",
    ],
)
def test_invalid_queries_are_refused(monitor: Running, query: str) -> None:
    assert monitor.get(f"/api/discrepancies?{query}").status_code == 422


def test_an_invalid_cursor_is_refused(monitor: Running) -> None:
    answer = monitor.get("/api/discrepancies?after=x")
    assert (answer.status_code, answer.json()["detail"][:19]) == (400, "'x' is not a cursor")


def test_a_count_beyond_five_has_a_number(recorder: Recorder, monitor: Running) -> None:
    distribution = [0.0] * 6 + [0.005] * 10 + [0.15, 0.5, 0.2, 0.05, 0.03, 0.02]
    recorder.count("bin-images/a.jpg", 6, distribution=distribution)
    recorder.expect("a", 40)
    (item,) = monitor.get("/api/discrepancies").json()["items"]
    assert (item["count"], item["difference"], item["difference_in_words"]) == ("about 17", -23, "23 fewer")
    assert item["outcome"] == "under"
    photo = monitor.get(f"/api/bin?id=a&bucket={BUCKET}").json()["photo"]
    assert (photo["count"], photo["between"]) == ("about 17", [16, 19])
    page = Parsed(monitor.page(f"/bin?id=a&bucket={BUCKET}")).text
    assert "probably 16 to 19" in page
    assert "23 fewer" in page
    assert "The model gives the expected quantity 2.0" in page, (
        "the probability of 40 is that of more than 20, not of the whole class"
    )
    latest = monitor.get("/api/overview").json()["latest"]
    assert [(each["count"], each["difference_in_words"]) for each in latest] == [("about 17", "23 fewer")]


def test_a_flag_beyond_five_can_be_right(recorder: Recorder, monitor: Running) -> None:
    """40 and 17 are in the same class but differ in quantity. Bins without a difference are never flagged."""
    pooled = category((0.3,) * 99, classes=UP_TO_20)
    Store(recorder.engine).use_model(MODEL, Calibration(photos=99, split="test", categories=(pooled,)))
    distribution = [0.0] * 6 + [0.005] * 10 + [0.15, 0.5, 0.2, 0.05, 0.03, 0.02]
    for bin_id, expected, quantity in (("wrong", 40, 17), ("right", 21, 21), ("agrees", 17, 17)):
        recorder.count(f"bin-images/{bin_id}.jpg", 6, distribution=distribution)
        recorder.expect(bin_id, expected)
        recorder.audit(bin_id, quantity)
    with recorder.engine.connect() as connection:
        level = read_level(connection, 0.05, Suspicion.MISSING)
        items = read_discrepancies(connection, Filters(direction=Direction.ALL), 0.05).items
    assert (level.flagged, level.checked, level.inventory_wrong) == (2, 2, 1)
    outcomes = {item.bin_id: item.audit.of_inventory for item in items if item.audit}
    assert outcomes == {"wrong": Outcome.OVER, "right": Outcome.EXACT, "agrees": Outcome.EXACT}


def test_an_unknown_bin_is_not_found(monitor: Running) -> None:
    answer = monitor.get("/api/bin?id=../../etc/passwd")
    assert answer.status_code == 404
    assert "'../../etc/passwd'" in answer.json()["detail"]


def test_metadata_without_a_quantity_has_a_reason(recorder: Recorder) -> None:
    recorder.expect("a", reason=MetadataReason.NOT_JSON)
    with recorder.engine.connect() as connection:
        details = read_bin(connection, BUCKET, "a", ALPHA)
    assert details.expected is not None
    assert (details.expected.quantity, details.expected.reason, details.photo) == (None, "not_json", None)


def test_drift_with_distributions(drifting: Running) -> None:
    drifting.services.drift.update()
    report = drifting.get("/api/drift").json()
    assert report["state"] == "drifted"
    (alarm,) = report["alarms"]
    assert (alarm["signal"], alarm["photos"]) == ("brightness", 120)
    assert alarm["began"] <= alarm["since"]
    latest = next(window for window in report["windows"] if window["window"] == "latest")
    signals = {item["signal"]: item for item in latest["signals"]}
    brightness = signals["brightness"]
    assert brightness["verdict"] == "drifted"
    shown = brightness["distribution"]
    assert shown["kind"] == "stretches"
    assert len(shown["reference"]) == len(shown["window"]) == len(shown["labels"]) == 24
    for side in ("reference", "window"):
        assert sum(shown[side]) == pytest.approx(1, abs=1e-3)

    def mean(side: str) -> float:
        return sum(share * position for position, share in enumerate(shown[side]))

    assert mean("window") > mean("reference") + 1, "the photos are brighter"
    assert signals["predicted"]["distribution"]["labels"][-1] == "more than 5"
    assert signals["embedding"]["distribution"]["kind"] == "shifts"
    brief = drifting.get("/api/overview").json()["drift"]
    assert brief["state"] == "drifted"
    assert "brightness" in brief["signals"]
