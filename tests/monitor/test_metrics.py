"""Metrics of known records."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from binwatch.bundle import Calibration
from binwatch.errors import MetadataReason, Reason
from binwatch.records.audits import AuditAnswer
from binwatch.records.store import Store
from binwatch.registry import CurrentModel
from binwatch.version import version
from monitor.cards import Cards
from tests.calibrations import category
from tests.monitor.conftest import DAY, MODEL, Recorder, Running, running_monitor
from tests.monitor.html import Parsed

Figure = Callable[..., float]
OUTAGE_METRICS = {
    "binwatch_build_info": {frozenset({("version", version())}): 1},
    "binwatch_records_up": {frozenset(): 0},
}
"""Names of the metrics of a scrape while the records cannot be read."""


def _comparisons(monitor: Running) -> dict[tuple[str, str], float]:
    """Return (expected, outcome) → number of comparisons, without zeros."""
    samples = monitor.metrics()["binwatch_comparisons_total"]
    return {(dict(labels)["expected"], dict(labels)["outcome"]): value for labels, value in samples.items() if value}


def test_comparisons_by_expected_count_and_outcome(known_records: Recorder, monitor: Running) -> None:
    assert _comparisons(monitor) == {
        ("2", "exact"): 1,
        ("3", "exact"): 1,
        ("3", "under"): 1,
        ("4", "over"): 1,
        ("more", "exact"): 1,
        ("more", "under"): 1,
    }


def test_errors_and_within_one(known_records: Recorder, figure: Figure) -> None:
    assert figure("binwatch_absolute_error_items_total", expected="3", outcome="under") == 2
    assert figure("binwatch_absolute_error_items_total", expected="3", outcome="over") == 0
    assert figure("binwatch_absolute_error_items_total", expected="4", outcome="over") == 1
    assert figure("binwatch_absolute_error_items_total", expected="more", outcome="under") == 1
    assert figure("binwatch_squared_error_total", expected="3") == 4
    assert figure("binwatch_squared_error_total", expected="2") == 0
    assert figure("binwatch_comparisons_within_one_total", expected="3") == 1
    assert figure("binwatch_comparisons_within_one_total", expected="more") == 2


def test_photos_and_expected_quantities_by_reason(known_records: Recorder, monitor: Running, figure: Figure) -> None:
    assert figure("binwatch_photos_total", outcome="counted", reason="") == 7
    assert figure("binwatch_photos_total", outcome="failed", reason=Reason.TRUNCATED) == 1
    assert figure("binwatch_photos_total", outcome="failed", reason=Reason.MISSING) == 1
    assert figure("binwatch_photos_total", outcome="failed", reason=Reason.CORRUPT) == 0
    name = "binwatch_expected_quantities_total"
    assert monitor.metric(name, outcome="read", reason="") == 7
    assert monitor.metric(name, outcome="failed", reason=MetadataReason.NOT_JSON) == 1
    assert monitor.metric(name, outcome="failed", reason=MetadataReason.NO_QUANTITY) == 1
    assert monitor.metric(name, outcome="failed", reason=MetadataReason.FORBIDDEN) == 0


def test_audits_judge_counts_and_inventory(known_records: Recorder, monitor: Running, figure: Figure) -> None:
    assert figure("binwatch_audited_counts", audited="2", outcome="exact") == 1
    assert figure("binwatch_audited_counts", audited="3", outcome="under") == 1
    assert figure("binwatch_audited_counts", audited="5", outcome="exact") == 1
    assert figure("binwatch_audited_counts", audited="4", outcome="exact") == 1
    assert figure("binwatch_audited_absolute_error_items", audited="3", outcome="under") == 2
    assert figure("binwatch_audited_squared_error", audited="3") == 4
    assert monitor.metric("binwatch_audited_expected_quantities", audited="3", outcome="exact") == 1
    assert monitor.metric("binwatch_audited_expected_quantities", audited="5", outcome="under") == 1
    assert sum(monitor.metrics()["binwatch_audited_expected_quantities"].values()) == 3


def test_flagged_bins_by_direction(recorder: Recorder, monitor: Running) -> None:
    pooled = category((0.3,) * 99)
    Store(recorder.engine).use_model(MODEL, Calibration(photos=99, split="test", categories=(pooled,)))
    for bin_id, predicted, expected in (("fewer", 1, 4), ("more", 5, 2), ("agrees", 2, 2)):
        recorder.pair(bin_id, predicted, expected)
    recorder.audit("more", 2)
    monitor.services.flags.update()
    states = {
        (direction, state): monitor.metric("binwatch_flagged_bins", direction=direction, state=state)
        for direction in ("either", "missing", "surplus")
        for state in ("open", "audited")
    }
    assert states == {
        ("either", "open"): 1,
        ("either", "audited"): 1,
        ("missing", "open"): 1,
        ("missing", "audited"): 0,
        ("surplus", "open"): 0,
        ("surplus", "audited"): 1,
    }
    assert monitor.metric("binwatch_flagged_bins_by_chance", direction="missing") == pytest.approx(3 * 0.05)


def test_only_blind_audits_with_a_number_measure_accuracy(
    known_records: Recorder, monitor: Running, figure: Figure
) -> None:
    before = monitor.metrics()["binwatch_audited_counts"]
    known_records.audit("b", 1, blind=False)
    known_records.audit("e", 3, answer=AuditAnswer.AT_LEAST)
    known_records.audit("f", None, answer=AuditAnswer.CANNOT_TELL)
    assert monitor.metrics()["binwatch_audited_counts"] == before
    assert figure("binwatch_sighted_audited_counts", audited="1", outcome="over") == 1
    assert monitor.metric("binwatch_sighted_audited_expected_quantities", audited="1", outcome="over") == 1
    entered = {
        tuple(sorted(dict(labels).items())): n for labels, n in monitor.metrics()["binwatch_audits_total"].items()
    }
    answers = [("count", "true", 4), ("count", "false", 1), ("at_least", "true", 1), ("cannot_tell", "true", 1)]
    assert {labels: n for labels, n in entered.items() if n} == {
        (("answer", answer), ("blind", blind)): n for answer, blind, n in answers
    }
    summary = monitor.get("/api/summary").json()
    assert (summary["audits"]["counts"]["comparisons"], summary["sighted_audits"]["counts"]["comparisons"]) == (4, 1)
    says = Parsed(monitor.page("/")).text
    assert "Not in it: 1 audit by people who had the numbers in sight (0 found the count right)" in says


def test_a_corrected_audit_counts_once(known_records: Recorder, monitor: Running, figure: Figure) -> None:
    known_records.audit("c", 1)
    assert figure("binwatch_audited_counts", audited="3", outcome="under") == 0
    assert figure("binwatch_audited_counts", audited="1", outcome="exact") == 1
    assert figure("binwatch_audited_absolute_error_items", audited="3", outcome="under") == 0
    assert figure("binwatch_audited_squared_error", audited="3") == 0
    assert monitor.metric("binwatch_audited_expected_quantities", audited="1", outcome="over") == 1
    assert sum(monitor.metrics()["binwatch_audited_counts"].values()) == 4
    summary = monitor.get("/api/summary").json()["audits"]
    assert (summary["counts"]["comparisons"], summary["counts"]["exact"]) == (4, 4)
    assert (summary["inventory"]["comparisons"], summary["inventory"]["exact"]) == (3, 1)
    (model,) = monitor.get("/api/models").json()["models"]
    assert model["against_audits"]["total"] == 4
    assert len(monitor.get("/api/audits").json()["items"]) == 5


def test_bins_by_available_data(known_records: Recorder, monitor: Running) -> None:
    def bins(photo: str, expected: str) -> float:
        return monitor.metric("binwatch_bins", photo=photo, expected=expected)

    assert bins("counted", "known") == 6
    assert bins("counted", "unreadable") == 1
    assert bins("failed", "none") == 1, "a missing photo does not count as a photo of its bin"
    assert bins("none", "known") == bins("none", "unreadable") == 1
    known_records.count("bin-images/y.jpg", 3)
    known_records.expect("g", 4, at=DAY + timedelta(days=1))
    assert bins("counted", "known") == 8
    assert bins("counted", "unreadable") == bins("none", "known") == 0
    assert sum(monitor.metrics()["binwatch_bins"].values()) == 10


def test_no_counter_falls_when_an_expected_quantity_is_corrected(known_records: Recorder, monitor: Running) -> None:
    before = monitor.metrics()
    known_records.expect("c", 1, at=DAY + timedelta(days=1))
    after = monitor.metrics()
    counters = [name for name in before if name.endswith("_total")]
    assert len(counters) == 7
    for name in counters:
        assert all(after[name][labels] >= value for labels, value in before[name].items()), name
    # The first comparison, with an expected quantity of 3 and a count of 1, is kept beside the new one.
    labels = {"model": MODEL, "outcome": "under", "expected": "3"}
    assert after["binwatch_comparisons_total"][frozenset(labels.items())] == 1
    labels = {"model": MODEL, "outcome": "exact", "expected": "1"}
    assert after["binwatch_comparisons_total"][frozenset(labels.items())] == 1


def test_the_model_in_use_is_that_of_the_latest_record(known_records: Recorder, monitor: Running) -> None:
    known_records.count("bin-images/new.jpg", 1, model="model-2")
    provider = {"precision": "int8", "provider": "CPUExecutionProvider"}
    assert monitor.metrics()["binwatch_model_info"] == {frozenset({"model": "model-2", **provider}.items()): 1}


def test_freshness_is_the_time_of_the_latest_record(monitor: Running, recorder: Recorder) -> None:
    start = time.time()
    recorder.pair("a", predicted=1, expected=1)
    end = time.time()
    for kind in ("photo", "expected_quantity", "comparison"):
        assert start - 1 <= monitor.metric("binwatch_last_record_timestamp_seconds", kind=kind) <= end


@pytest.mark.parametrize("known_by", ["the settings' folder", "a worker's note", "its promotion"])
def test_counters_of_a_model_start_at_0_before_its_first_record(
    known_by: str, bundle: Path, recorder: Recorder, monitor: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise Prometheus' increase() would miss the first records."""
    model = MODEL
    if known_by == "a worker's note":
        model = "model-2"
        recorder.calibrate(model)
    elif known_by == "its promotion":
        model = "model-3"
        monkeypatch.setattr(Cards, "current", lambda _: CurrentModel(version=model, promoted=DAY))
    before = _values_of_model(monitor, model)
    assert {name: set(values) for name, values in before.items()} == {
        "binwatch_photos_total": {0},
        "binwatch_comparisons_total": {0},
        "binwatch_comparisons_within_one_total": {0},
        "binwatch_absolute_error_items_total": {0},
        "binwatch_squared_error_total": {0},
        "binwatch_audited_counts": {0},
        "binwatch_audited_absolute_error_items": {0},
        "binwatch_audited_squared_error": {0},
        "binwatch_sighted_audited_counts": {0},
    }
    recorder.pair("a", predicted=2, expected=4, model=model)
    after = _values_of_model(monitor, model)
    assert {name: len(values) for name, values in after.items()} == {n: len(values) for n, values in before.items()}
    assert (sum(after["binwatch_photos_total"]), sum(after["binwatch_squared_error_total"])) == (1, 4)


def _values_of_model(monitor: Running, model: str) -> dict[str, list[float]]:
    """Return sample name → values of one model."""
    result: dict[str, list[float]] = {}
    for name, values in monitor.metrics().items():
        for labels, value in values.items():
            if dict(labels).get("model") == model and name != "binwatch_model_info":
                result.setdefault(name, []).append(value)
    return result


def test_empty_records_are_no_error(monitor: Running) -> None:
    samples = monitor.metrics()
    assert samples["binwatch_records_up"] == {frozenset(): 1}
    assert set(samples["binwatch_comparisons_total"].values()) == {0}
    assert "binwatch_model_info" not in samples
    assert "binwatch_last_record_timestamp_seconds" not in samples
    assert set(samples["binwatch_expected_quantities_total"].values()) == {0}


def test_labels_contain_no_bin_key_or_bucket(monitor: Running, recorder: Recorder) -> None:
    recorder.pair("secret-bin", predicted=1, expected=1)
    recorder.count("secret-bin/x.jpg", reason=Reason.CORRUPT, detail="secret-bin")
    text = monitor.get("/metrics").text
    assert "secret-bin" not in text
    assert "bin-images" not in text


def test_a_model_name_cannot_break_the_format(monitor: Running, recorder: Recorder) -> None:
    name = 'v"1\n\\binwatch_fake 1'
    recorder.count("a.jpg", 1, model=name)
    assert monitor.metric("binwatch_photos_total", model=name, outcome="counted", reason="") == 1
    assert "binwatch_fake" not in monitor.metrics()


def test_both_metrics_formats_are_served(monitor: Running) -> None:
    plain = monitor.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    accept = "application/openmetrics-text;version=1.0.0"
    answer = monitor.get("/metrics", Accept=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


def test_a_scrape_reads_only_totals(known_records: Recorder, monitor: Running, sqlite_records: Engine) -> None:
    """Deleting all ledger rows except for the last count changes nothing."""
    before = monitor.get("/metrics").text
    with sqlite_records.begin() as connection:
        connection.exec_driver_sql("DELETE FROM current_comparisons")
        connection.exec_driver_sql("DELETE FROM comparisons")
        connection.exec_driver_sql("DELETE FROM variance_trail")
        connection.exec_driver_sql("DELETE FROM variances")
        connection.exec_driver_sql("DELETE FROM audits")
        connection.exec_driver_sql("DELETE FROM bins")
        connection.exec_driver_sql("DELETE FROM expectations")
        connection.exec_driver_sql("DELETE FROM counts WHERE id < (SELECT max(id) FROM counts)")
    assert monitor.get("/metrics").text == before


def test_a_scrape_reports_a_missing_database_and_recovers(
    known_records: Recorder, monitor: Running, tmp_path: Path
) -> None:
    before = monitor.metrics()
    database, moved_database = tmp_path / "records.db", tmp_path / "away.db"
    database.rename(moved_database)
    assert monitor.metrics() == OUTAGE_METRICS
    assert monitor.get("/healthz").status_code == 503
    assert not database.exists(), "the monitor must not create an empty database"
    moved_database.rename(database)
    assert monitor.get("/healthz").json() == {"status": "ok"}
    assert monitor.metrics() == before


def test_a_scrape_waits_only_briefly_for_a_locked_database(
    known_records: Recorder, monitor: Running, sqlite_records: Engine
) -> None:
    with sqlite_records.connect() as connection:
        connection.exec_driver_sql("PRAGMA locking_mode=EXCLUSIVE")
        connection.exec_driver_sql("PRAGMA user_version=1")
        assert monitor.metrics() == OUTAGE_METRICS
        connection.invalidate()
    assert monitor.metric("binwatch_records_up") == 1


def test_on_postgresql(postgres_records: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWATCH_DATABASE_URL", postgres_records.url.render_as_string(hide_password=False))
    Recorder(postgres_records).pair("a", predicted=1, expected=3)
    with running_monitor() as monitor:
        assert _comparisons(monitor) == {("3", "under"): 1}
        assert "2 fewer" in monitor.page()
