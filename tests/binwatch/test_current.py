"""Current comparisons of bins, their p-values, and hourly and confusion totals. On both databases."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from binwatch.bundle import Calibration
from binwatch.errors import MetadataReason, Reason
from binwatch.records import ranking
from binwatch.records.audits import SeenPhoto, StaleAudit, add_audit
from binwatch.records.engine import connect
from binwatch.records.migrate import migrate
from binwatch.records.ranking import update_p_values
from binwatch.records.settlement import RankKind
from binwatch.records.store import NewCount, NewExpectation, Store
from binwatch.records.tables import (
    Base,
    Comparison,
    ComparisonHour,
    ConfusionTotal,
    Count,
    CurrentComparison,
    Model,
    PhotoHour,
    RankTotal,
)
from tests.calibrations import UP_TO_20, category

START = datetime(2026, 11, 20, tzinfo=UTC)
CALIBRATION = Calibration(photos=4, split="test", categories=(category((0.1, 0.5, 0.5, 0.9), classes=UP_TO_20),))


def count(bin_id: str, predicted: int | None, minutes: int = 0, model: str = "v1", **fields: Any) -> NewCount:
    """Return a count with probability 0.7, or a failed count."""
    probabilities = None if predicted is None else [0.7 if index == predicted else 0.05 for index in range(7)]
    values: dict[str, Any] = {
        "bucket": "bins",
        "key": f"bin-images/{bin_id}.jpg",
        "etag": f"{minutes}",
        "model_version": model,
        "precision": "int8",
        "provider": "CPUExecutionProvider",
        "modified_at": START + timedelta(minutes=minutes),
        "predicted": predicted,
        "probabilities": probabilities,
        "reason": Reason.CORRUPT if predicted is None else None,
    }
    return NewCount(**(values | fields))


def expect(bin_id: str, quantity: int | None, minutes: int = 0) -> NewExpectation:
    """Return an expected quantity, or the record of a metadata file without one."""
    return NewExpectation(
        bucket="bins",
        bin_id=bin_id,
        source=f"{bin_id}.json",
        etag=f"{minutes}",
        modified_at=START + timedelta(minutes=minutes),
        quantity=quantity,
        reason=MetadataReason.NOT_JSON if quantity is None else None,
    )


def rows(engine: Engine, table: type[Base]) -> list[dict[str, Any]]:
    """Read all rows of a table in the order of its key."""
    columns = table.__table__.c
    with engine.connect() as connection:
        statement = select(*columns).order_by(*(column for column in columns if column.primary_key))
        return [dict(row) for row in connection.execute(statement).mappings()]


def current(engine: Engine) -> dict[str, tuple[int, int, int]]:
    """Read predicted, expected and difference by bin."""
    result = rows(engine, CurrentComparison)
    return {row["bin_id"]: (row["predicted"], row["expected"], row["difference"]) for row in result}


def test_only_the_latest_count_and_quantity_are_listed(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([count("a", 2), count("b", 3), count("c", None)])
    store.add_expectations([expect("a", 2), expect("b", 9), expect("c", 1), expect("d", 1)])
    assert current(records_engine) == {"a": (2, 2, 0), "b": (3, 9, -6)}
    store.add_expectations([expect("a", 4, minutes=1)])
    store.add_counts([count("b", 6, minutes=1), count("a", 5, minutes=-1)])
    assert current(records_engine) == {"a": (2, 4, -2), "b": (6, 9, 0)}


def test_a_bin_that_can_no_longer_be_compared_is_removed(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([count("a", 2), count("b", 2)])
    store.add_expectations([expect("a", 2), expect("b", 2)])
    store.add_counts([count("a", None, minutes=1)])
    store.add_expectations([expect("b", None, minutes=1)])
    assert current(records_engine) == {}
    store.add_counts([count("a", 3, minutes=1)])  # the failure was not caused by the photo
    assert current(records_engine) == {"a": (3, 2, 1)}


def test_comparisons_get_p_values_by_their_models_calibration(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.use_model("v1", CALIBRATION)
    store.add_counts([count("a", 2), count("b", 2), count("c", 2, model="older")])
    store.add_expectations([expect("a", 2), expect("b", 3), expect("c", 3)])
    columns = ("chance", "p_value", "p_missing", "p_surplus", "doubt", "doubt_one_sided")
    result = {row["bin_id"]: tuple(map(row.get, columns)) for row in rows(records_engine, CurrentComparison)}
    assert result == {
        "a": (0.7, 0.8, 1.0, 0.8, 0.8, 0.8),
        "b": (0.05, 0.4, 0.4, 0.8, 0.4, 0.4),
        "c": (0.05, None, None, None, 1.05, 1.05),
    }
    columns = ("p_value", "p_missing", "p_surplus")
    assert [tuple(map(row.get, columns)) for row in rows(records_engine, Comparison)] == [
        (0.8, 1.0, 0.8),
        (0.4, 0.4, 0.8),
        (None, None, None),
    ]


def test_one_sided_doubt_is_in_the_direction_of_the_difference(records_engine: Engine) -> None:
    """This calibration has lower scores for a surplus, so the same tail has a smaller p-value on that side."""
    store = Store(records_engine)
    pooled = category((0.1, 0.5, 0.5, 0.9), surplus=(0.1, 0.1, 0.1, 0.2))
    store.use_model("v1", Calibration(photos=4, split="test", categories=(pooled,)))
    store.add_counts([count("more", 4), count("fewer", 2)])
    store.add_expectations([expect("more", 3), expect("fewer", 3)])
    result = {row["bin_id"]: row for row in rows(records_engine, CurrentComparison)}
    assert (result["more"]["difference"], result["fewer"]["difference"]) == (1, -1)
    assert result["more"]["doubt_one_sided"] == result["more"]["p_surplus"] == 0.2
    assert result["fewer"]["doubt_one_sided"] == result["fewer"]["p_missing"] == 0.4


def test_a_quantity_that_the_model_cannot_predict_ranks_last(records_engine: Engine) -> None:
    """Its probability is always 0: ranked by probability, such bins would hide those that are recorded wrongly."""
    partial = category((0.1, 0.5, 0.5, 0.9), classes=(1, 2, 3, 4, 5))
    store = Store(records_engine)
    store.use_model("v1", Calibration(photos=4, split="test", categories=(partial,)))
    probabilities = [0.0, 0.1, 0.7, 0.1, 0.1, 0.0, 0.0]
    store.add_counts([count(bin_id, 2, probabilities=probabilities) for bin_id in ("a", "b", "c")])
    store.add_expectations([expect("a", 0), expect("b", 3), expect("c", 12)])
    result = {row["bin_id"]: (row["p_value"], row["doubt"]) for row in rows(records_engine, CurrentComparison)}
    assert result == {"a": (None, 3.0), "b": (0.4, 0.4), "c": (None, 3.0)}
    assert [(row["chance"], row["error"]) for row in rows(records_engine, Comparison)] == [
        (None, 2),
        (0.1, -1),
        (None, -4),
    ]
    assert update_p_values(records_engine) == 0


def test_17_counted_where_40_are_expected(records_engine: Engine) -> None:
    """Both are "more than 5", so the outcome is exact; but the listed difference is not 0, and the p-value is low."""
    distribution = [0.0] * 6 + [0.005] * 10 + [0.15, 0.5, 0.2, 0.05, 0.03, 0.02]
    classes = [*distribution[:6], round(sum(distribution[6:]), 6)]
    store = Store(records_engine)
    store.use_model("v1", CALIBRATION)
    finer = {"probabilities": classes, "distribution": distribution}
    store.add_counts([count(bin_id, 6, **finer) for bin_id in ("few", "right", "none")] + [count("classes", 6)])
    store.add_expectations([expect(*pair) for pair in (("few", 40), ("right", 18), ("none", 3), ("classes", 40))])
    result = {
        row["bin_id"]: (row["difference"], row["p_missing"], row["p_surplus"])
        for row in rows(records_engine, CurrentComparison)
    }
    assert result == {
        "few": (-23, 0.2, 1.0),
        "right": (0, 0.4, 1.0),
        "none": (14, 1.0, 0.2),
        "classes": (0, 0.8, 1.0),
    }
    assert current(records_engine)["few"] == (6, 40, -23)
    outcomes = {row["bin_id"]: (row["outcome"], row["error"]) for row in rows(records_engine, Comparison)}
    assert outcomes["few"] == outcomes["classes"] == ("exact", 0)


def test_a_changed_calibration_is_used_at_once(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_expectations([expect("a", 3), expect("b", 3)])
    store.use_model("v1", CALIBRATION)
    store.add_counts([count("a", 2)])
    other = Calibration(photos=1, split="test", categories=(category((1.0,)),))
    Store(records_engine).use_model("v1", other)
    Store(records_engine).use_model("v1", None)  # a worker with an older bundle has no calibration and removes none
    store.add_counts([count("b", 2)])
    assert [row["p_value"] for row in rows(records_engine, CurrentComparison)] == [0.4, 1.0]


def test_time_of_a_models_first_use(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.use_model("v1", CALIBRATION)
    (before,) = rows(records_engine, Model)
    store.use_model("v1", CALIBRATION)
    assert rows(records_engine, Model) == [before]


def test_bins_compared_without_calibration_get_p_values_later(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([count("a", 2), count("b", 2, probabilities=None), count("c", 2, model="other")])
    store.add_expectations([expect("a", 3), expect("b", 3), expect("c", 3)])
    store.use_model("v1", CALIBRATION)
    assert update_p_values(records_engine) == 2
    assert update_p_values(records_engine) == 0
    assert [row["doubt"] for row in rows(records_engine, CurrentComparison)] == [0.4, 3.0, 1.05]
    columns = ("p_value", "p_missing", "p_surplus")
    assert [tuple(map(row.get, columns)) for row in rows(records_engine, Comparison)] == [
        (0.4, 0.4, 0.8),
        (None, None, None),
        (None, None, None),
    ]


def test_a_bin_whose_expected_class_has_probability_0_is_ranked(records_engine: Engine) -> None:
    """Its doubt before calibration equals that of a p-value of 1. Both bins are updated, and only once."""
    sure = [0.0, 0.05, 0.95, 0.0, 0.0, 0.0, 0.0]
    store = Store(records_engine)
    store.add_counts([count("odd", 2, probabilities=sure), count("usual", 2, probabilities=sure)])
    store.add_expectations([expect("odd", 3), expect("usual", 2)])
    store.use_model("v1", CALIBRATION)
    assert [update_p_values(records_engine), update_p_values(records_engine)] == [2, 0]
    assert [row["p_value"] for row in rows(records_engine, CurrentComparison)] == [0.2, 1.0]


def test_a_bin_whose_expected_class_is_certain_is_ranked(records_engine: Engine) -> None:
    """As a class it agrees with certainty, but beyond five it can still have a low p-value."""
    distribution = [0.0] * 6 + [0.0] * 10 + [0.2, 0.6, 0.2, 0.0, 0.0, 0.0]
    finer = {"probabilities": [0.0] * 6 + [1.0], "distribution": distribution}
    store = Store(records_engine)
    store.add_counts([count("few", 6, **finer), count("none", 6, probabilities=None)])
    store.add_expectations([expect("few", 40), expect("none", 40)])
    assert [row["doubt"] for row in rows(records_engine, CurrentComparison)] == [2.0, 3.0]
    store.use_model("v1", CALIBRATION)
    assert [update_p_values(records_engine), update_p_values(records_engine)] == [2, 0]
    assert [row["p_missing"] for row in rows(records_engine, CurrentComparison)] == [0.2, None]


def judged(engine: Engine) -> dict[str, tuple[Any, ...]]:
    """Read the current p-value, doubt and calibration of each bin."""
    columns = ("p_value", "doubt", "calibration")
    return {row["bin_id"]: tuple(map(row.get, columns)) for row in rows(engine, CurrentComparison)}


STRICTER = Calibration(photos=1, split="test", categories=(category((0.0,)),))
"""A calibration whose only score is 0, so that every score above 0 is more unusual."""


def test_a_new_calibration_updates_existing_p_values(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.use_model("v1", CALIBRATION)
    store.use_model("v2", CALIBRATION)
    store.add_counts([count("a", 2), count("b", 2), count("other", 2, model="v2")])
    store.add_expectations([expect("a", 3), expect("b", 2), expect("other", 3)])
    before = {"a": (0.4, 0.4, 1), "b": (0.8, 0.8, 1), "other": (0.4, 0.4, 1)}
    assert judged(records_engine) == before
    assert update_p_values(records_engine) == 0
    store.use_model("v1", STRICTER)
    assert update_p_values(records_engine, ["v2"]) == 0
    assert judged(records_engine) == before
    assert update_p_values(records_engine) == 2
    assert judged(records_engine) == before | {"a": (0.5, 0.5, 2), "b": (0.5, 0.5, 2)}
    assert update_p_values(records_engine) == 0
    ledger = {row["bin_id"]: row["p_value"] for row in rows(records_engine, Comparison)}
    assert ledger == {"a": 0.4, "b": 0.8, "other": 0.4}, "the p-value in the ledger at that time"


def test_a_repeated_quantity_keeps_the_current_p_values(records_engine: Engine) -> None:
    """The comparison in the ledger keeps its first p-values."""
    store = Store(records_engine)
    store.use_model("v1", CALIBRATION)
    store.add_counts([count("a", 2)])
    store.add_expectations([expect("a", 3)])
    store.use_model("v1", STRICTER)
    store.add_expectations([expect("a", 3, minutes=1)])
    assert judged(records_engine) == {"a": (0.5, 0.5, 2)}
    assert len(rows(records_engine, Comparison)) == 1
    assert update_p_values(records_engine) == 0


def test_quantities_that_a_new_calibration_lacks_lose_their_p_values(records_engine: Engine) -> None:
    """A calibration that has them again brings the p-values back."""
    partial = Calibration(photos=4, split="test", categories=(category((0.1, 0.5, 0.5, 0.9), classes=(1, 2, 3, 4, 5)),))
    store = Store(records_engine)
    store.use_model("v1", CALIBRATION)
    store.add_counts([count("a", 2), count("b", 2)])
    store.add_expectations([expect("a", 0), expect("b", 3)])
    (before,) = {judged(records_engine)["a"]}
    store.use_model("v1", partial)
    assert update_p_values(records_engine) == 2
    assert judged(records_engine) == {"a": (None, 3.0, 2), "b": (0.4, 0.4, 2)}
    assert {row["kind"]: row["bins"] for row in rows(records_engine, RankTotal)} == {"calibrated": 1, "uncalibrated": 1}
    store.use_model("v1", CALIBRATION)
    assert update_p_values(records_engine) == 2
    assert judged(records_engine)["a"] == (*before[:2], 3)
    assert {row["kind"]: row["bins"] for row in rows(records_engine, RankTotal)} == {"calibrated": 2, "uncalibrated": 0}


def test_bins_of_an_unpredictable_quantity_rank_last_after_calibration(records_engine: Engine) -> None:
    """Compared before the calibration was recorded, they had probability 0, and so ranked first."""
    partial = Calibration(photos=4, split="test", categories=(category((0.1, 0.5, 0.5, 0.9), classes=(1, 2, 3, 4, 5)),))
    store = Store(records_engine)
    store.add_counts([count("a", 2, probabilities=[0.0, 0.1, 0.7, 0.1, 0.1, 0.0, 0.0])])
    store.add_expectations([expect("a", 0)])
    assert judged(records_engine) == {"a": (None, 1.0, 0)}
    store.use_model("v1", partial)
    assert [update_p_values(records_engine), update_p_values(records_engine)] == [1, 0]
    assert judged(records_engine) == {"a": (None, 3.0, 1)}
    assert [row["chance"] for row in rows(records_engine, CurrentComparison)] == [1.0]


def test_updating_p_values_continues_after_a_failure(
    records_engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each chunk is a transaction. The next run updates what an outage left, and nothing twice."""
    monkeypatch.setattr(ranking, "BINS_PER_TRANSACTION", 2)
    monkeypatch.setattr(ranking, "_TRANSACTIONS_PER_LOG_LINE", 1)
    caplog.set_level("INFO", "binwatch.records.ranking")
    store = Store(records_engine)
    store.use_model("v1", CALIBRATION)
    store.add_counts([count(name, 2) for name in "abcde"])
    store.add_expectations([expect(name, 3) for name in "abcde"])
    store.use_model("v1", STRICTER)
    real, calls = ranking._write_p_values, []

    def write(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise RuntimeError("the connection broke")
        real(*arguments)

    monkeypatch.setattr(ranking, "_write_p_values", write)
    with pytest.raises(RuntimeError, match="the connection broke"):
        update_p_values(records_engine)
    assert sorted(result[2] for result in judged(records_engine).values()) == [1, 1, 1, 2, 2]
    assert update_p_values(records_engine) == 3
    assert set(judged(records_engine).values()) == {(0.5, 0.5, 2)}
    assert [record.getMessage() for record in caplog.records] == [
        "model v1: p-values of 2 of 5 bins updated",
        "model v1: p-values of 2 of 3 bins updated",
        "model v1: p-values of 3 of 3 bins updated",
    ]


def test_rank_totals_equal_a_scan(records_engine: Engine) -> None:
    store = Store(records_engine)

    def scanned() -> dict[str, int]:
        result = [row["p_value"] is not None for row in rows(records_engine, CurrentComparison)]
        return {RankKind.CALIBRATED: sum(result), RankKind.UNCALIBRATED: len(result) - sum(result)}

    def totals() -> dict[str, int]:
        recorded = {row["kind"]: row["bins"] for row in rows(records_engine, RankTotal)}
        return dict.fromkeys(RankKind, 0) | recorded

    store.add_counts([count(name, 2) for name in "abcd"])
    store.add_expectations([expect(name, 3) for name in "abcde"])
    assert totals() == scanned() == {RankKind.CALIBRATED: 0, RankKind.UNCALIBRATED: 4}
    store.use_model("v1", CALIBRATION)
    store.add_counts([count("e", 1), count("a", 5, minutes=1)])
    assert totals() == scanned() == {RankKind.CALIBRATED: 2, RankKind.UNCALIBRATED: 3}
    store.add_counts([count("a", None, minutes=2), count("b", 2, model="uncalibrated")])
    assert totals() == scanned() == {RankKind.CALIBRATED: 1, RankKind.UNCALIBRATED: 3}
    update_p_values(records_engine)
    assert totals() == scanned() == {RankKind.CALIBRATED: 3, RankKind.UNCALIBRATED: 1}


def test_an_audit_holds_for_every_models_count_of_the_photo(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([count("a", 2)])
    store.add_expectations([expect("a", 3)])
    audited = add_audit(records_engine, "bins", "a", 3)

    def audit() -> int | None:
        (row,) = rows(records_engine, CurrentComparison)
        result: int | None = row["audit_id"]
        return result

    assert audit() == audited.id
    store.add_counts([count("a", 3, model="v2")])
    assert audit() == audited.id
    store.add_expectations([expect("a", 4, minutes=1)])
    assert audit() == audited.id
    store.add_counts([count("a", 3, minutes=1, model="v2")])
    assert audit() is None


def test_an_audit_of_a_replaced_photo_is_refused(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([count("a", 2), count("a", 2, model="v2"), count("a", 5, minutes=1)])
    first, second, newest = (row["id"] for row in rows(records_engine, Count))
    for seen_count in (first, second, None, 10**9):
        with pytest.raises(StaleAudit, match="bin 'a' has another photo"):
            add_audit(records_engine, "bins", "a", 3, seen_count_id=seen_count)
    assert add_audit(records_engine, "bins", "a", 3, seen_count_id=newest).is_new
    assert add_audit(records_engine, "bins", "a", 4, seen_count_id=SeenPhoto.ANY).is_new


def test_a_repeated_audit_is_recorded_once(records_engine: Engine) -> None:
    Store(records_engine).add_counts([count("a", 2)])
    first = add_audit(records_engine, "bins", "a", 3, "Ada")
    repeated = add_audit(records_engine, "bins", "a", 3, "Ada")
    assert (repeated.id, repeated.is_new) == (first.id, False)
    assert add_audit(records_engine, "bins", "a", 3, "Bob").is_new
    assert add_audit(records_engine, "bins", "a", 3, "Ada").is_new


def test_hourly_and_confusion_totals(records_engine: Engine) -> None:
    store = Store(records_engine)
    store.add_counts([count("a", 2), count("b", 3), count("c", None), count("d", 2, probabilities=None)])
    store.add_expectations([expect("a", 2), expect("b", 17)])
    add_audit(records_engine, "bins", "b", 8, blind=True)
    hours = rows(records_engine, ComparisonHour)
    assert sum(row["comparisons"] for row in hours) == 2
    assert {row["outcome"] for row in hours} == {"exact", "under"}
    assert all(row["hour"] == row["hour"].replace(minute=0, second=0, microsecond=0) for row in hours)
    photos = rows(records_engine, PhotoHour)
    assert {(row["tenth"], row["model_version"]) for row in photos} == {(7, "v1")}
    assert sum(row["photos"] for row in photos) == 2
    assert sum(row["confidence"] for row in photos) == pytest.approx(1.4)
    confusions = {
        (row["reference"], row["true_class"], row["predicted_class"]): row["comparisons"]
        for row in rows(records_engine, ConfusionTotal)
        if row["model_version"]
    }
    assert confusions == {("inventory", 2, 2): 1, ("inventory", 6, 3): 1, ("audit", 6, 3): 1}


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    """Return the URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("postgres_empty_url")
    return url


COUNT = """
    INSERT INTO counts (id, bucket, key, etag, bin_id, model_version, precision, provider, predicted, probabilities,
        reason, modified_at, recorded_at)
    VALUES (:id, 'b', :key, 'e', :bin, 'm', 'int8', 'cpu', :predicted, :said, :reason, :at, :at)
"""
AT = "2026-01-01 10:20:30.000000+00:00"


def test_migrated_bins_are_judged_by_the_current_calibration(empty_url: str) -> None:
    """The calibration that judged them is unknown. Bins of quantities that the model cannot predict rank last."""
    engine = connect(empty_url)
    migrate(engine, "0010")
    at = AT if engine.dialect.name == "postgresql" else AT.removesuffix("+00:00")
    calibration = json.dumps(CALIBRATION.model_dump(mode="json"))
    sure, unsure = "[0, 0, 0, 1, 0, 0, 0]", "[0.05, 0.05, 0.05, 0.7, 0.05, 0.05, 0.05]"
    # Bin, model, probabilities, chance in the ledger and in the ranking, p-value and doubt.
    bins = [
        ("judged", "m", unsure, 0.05, 0.05, 0.01, 0.01),
        ("certain", "none", sure, 1.0, 1.0, None, 2.0),
        ("unknown", "none", None, None, 1.0, None, 2.0),
    ]
    with engine.begin() as connection:
        values = {"at": at, "calibration": calibration}
        for model, model_calibration, since in (("m", ":calibration", ":at"), ("none", "NULL", "NULL")):
            statement = f"INSERT INTO models VALUES ('{model}', :at, {model_calibration}, {since})"
            connection.execute(text(statement), values)
        for number, (name, model, probabilities, chance, ranked, p_value, doubt) in enumerate(bins, 1):
            row = {"id": number, "bin": name, "model": model, "chance": chance, "ranked": ranked, "p": p_value}
            row |= {
                "key": f"{name}.jpg",
                "said": probabilities,
                "predicted": 3,
                "reason": None,
                "at": at,
                "doubt": doubt,
            }
            connection.execute(text(COUNT.replace("'m'", ":model")), row)
            for statement in (
                "INSERT INTO expectations (id, bucket, bin_id, source, etag, quantity, modified_at, recorded_at)"
                " VALUES (:id, 'b', :bin, 's', 'e', 4, :at, :at)",
                "INSERT INTO bins (bucket, bin_id, count_id, expectation_id) VALUES ('b', :bin, :id, :id)",
                "INSERT INTO comparisons (id, bucket, bin_id, count_id, expectation_id, model_version, predicted,"
                " expected, error, outcome, chance, p_value, compared_at)"
                " VALUES (:id, 'b', :bin, :id, :id, :model, 3, 4, -1, 'under', :chance, :p, :at)",
                "INSERT INTO current_comparisons (bucket, bin_id, comparison_id, count_id, expectation_id,"
                " model_version, key, photo_at, predicted, expected, difference, chance, p_value, doubt,"
                " doubt_one_sided) VALUES ('b', :bin, :id, :id, :id, :model, :key, :at, 3, 4, -1, :ranked, :p, :doubt,"
                " :doubt)",
            ):
                connection.execute(text(statement), row)
        for kind, number in (("calibrated", 1), ("uncalibrated", 2)):
            statement = f"INSERT INTO rank_totals (kind, bins, last_at) VALUES ('{kind}', {number}, :at)"
            connection.execute(text(statement), values)
    migrate(engine)
    before = judged(engine)
    assert before == {"judged": (0.01, 0.01, 0), "certain": (None, 2.0, 0), "unknown": (None, 3.0, 0)}
    Store(engine).use_model("m", CALIBRATION)  # unchanged
    assert [update_p_values(engine), update_p_values(engine)] == [1, 0]
    assert judged(engine) == before | {"judged": (0.4, 0.4, 1)}
    assert {row["kind"]: row["bins"] for row in rows(engine, RankTotal)} == {"calibrated": 1, "uncalibrated": 2}
    engine.dispose()


def test_migrated_p_values_are_recomputed(empty_url: str) -> None:
    """They and the recorded calibration were based on another score."""
    engine = connect(empty_url)
    migrate(engine, "0008")
    at = AT if engine.dialect.name == "postgresql" else AT.removesuffix("+00:00")
    unsure = "[0.05, 0.05, 0.05, 0.7, 0.05, 0.05, 0.05]"
    statements = (
        "INSERT INTO models (model_version, first_at, calibration, calibrated_at) VALUES ('m', :at, '{}', :at)",
        "INSERT INTO expectations (id, bucket, bin_id, source, etag, quantity, modified_at, recorded_at)"
        " VALUES (1, 'b', 'a', 's', 'e', 4, :at, :at)",
        "INSERT INTO bins (bucket, bin_id, count_id, expectation_id) VALUES ('b', 'a', 1, 1)",
        "INSERT INTO comparisons (id, bucket, bin_id, count_id, expectation_id, model_version, predicted, expected,"
        " error, outcome, chance, p_value, compared_at)"
        " VALUES (1, 'b', 'a', 1, 1, 'm', 3, 4, -1, 'under', 0.05, 0.01, :at)",
        "INSERT INTO current_comparisons (bucket, bin_id, comparison_id, count_id, expectation_id, model_version, key,"
        " photo_at, predicted, expected, difference, chance, p_value, doubt)"
        " VALUES ('b', 'a', 1, 1, 1, 'm', 'a.jpg', :at, 3, 4, -1, 0.05, 0.01, 0.01)",
        "INSERT INTO rank_totals (kind, bins, last_at) VALUES ('calibrated', 1, :at)",
    )
    with engine.begin() as connection:
        values = {"id": 1, "key": "a.jpg", "bin": "a", "predicted": 3, "reason": None, "said": unsure, "at": at}
        connection.execute(text(COUNT), values)
        for statement in statements:
            connection.execute(text(statement), {"at": at})
    migrate(engine)
    columns = ("p_value", "p_missing", "p_surplus", "doubt", "doubt_one_sided")
    (now,) = rows(engine, CurrentComparison)
    assert tuple(map(now.get, columns)) == (None, None, None, 1.05, 1.05)
    assert update_p_values(engine) == 0
    Store(engine).use_model("m", CALIBRATION)
    assert update_p_values(engine) == 1
    (now,) = rows(engine, CurrentComparison)
    assert tuple(map(now.get, columns)) == (0.4, 0.4, 1.0, 0.4, 0.4)
    totals = {row["kind"]: row["bins"] for row in rows(engine, RankTotal)}
    assert totals == {"calibrated": 1, "uncalibrated": 0}
    engine.dispose()
