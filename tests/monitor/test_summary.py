"""Summary figures, confidence intervals and the displayed precision."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor import formatting
from monitor.summary import UnknownModel, summarise, wilson
from monitor.totals import Totals
from tests.monitor.conftest import Recorder, Running


def _totals() -> Totals:
    return Totals(photos={}, expectations={}, confusions={}, last={}, in_use=None)


def test_the_api_returns_the_known_figures(known_records: Recorder, monitor: Running) -> None:
    summary = monitor.get("/api/summary").json()
    assert summary["model"] == summary["in_use"]["version"] == "model-1"
    assert summary["photos"] == {"done": 7, "failed": {"missing": 1, "truncated": 1}}
    assert summary["expected_quantities"] == {"done": 7, "failed": {"no_expected_quantity": 1, "not_json": 1}}
    total = summary["agreement"]["total"]
    assert (total["comparisons"], total["exact"], total["under"], total["over"]) == (6, 3, 2, 1)
    assert total["agreement"] == 0.5
    assert total["within_one"] == pytest.approx(5 / 6)
    assert total["mae"] == pytest.approx(4 / 6)
    assert total["rmse"] == pytest.approx(math.sqrt(6 / 6))
    rows = {row["expected"]: row for row in summary["agreement"]["by_expected"]}
    assert list(rows) == ["0", "1", "2", "3", "4", "5", "more than 5"]
    assert rows["0"]["agreement"] is None
    assert rows["3"]["agreement"] == 0.5
    assert rows["more than 5"]["comparisons"] == 2
    assert all(summary["last"].values())
    audits = summary["audits"]
    assert (audits["counts"]["agreement"], audits["counts"]["mae"]) == (0.75, 0.5)
    assert audits["inventory"]["agreement"] == pytest.approx(2 / 3)
    assert summary["bins"] == {"photo_without_quantity": 2, "quantity_without_photo": 1}


def test_each_model_has_its_own_figures(known_records: Recorder, monitor: Running) -> None:
    known_records.count("bin-images/a.jpg", 1, model="model-2")
    assert monitor.get("/api/summary").json()["agreement"]["total"]["agreement"] == 0.0
    older = monitor.get("/api/summary?model=model-1").json()
    assert older["agreement"]["total"]["comparisons"] == 6
    assert older["in_use"]["version"] == "model-2"


def test_an_unknown_model_is_named(known_records: Recorder, monitor: Running) -> None:
    answer = monitor.get("/api/summary?model=model-9")
    assert answer.status_code == 404
    assert "'model-9'" in answer.json()["detail"]
    assert "model-1" in answer.json()["detail"]


def test_a_name_longer_than_any_model_is_refused(monitor: Running) -> None:
    assert monitor.get(f"/api/summary?model={'x' * 101}").status_code == 422


def test_empty_records_have_no_figures() -> None:
    summary = summarise(_totals())
    assert summary.model is None
    assert summary.agreement.total.agreement is None
    assert summary.agreement.interval is None
    with pytest.raises(UnknownModel, match="none yet"):
        summarise(_totals(), "any")


def test_openapi_describes_the_api(monitor: Running) -> None:
    paths = monitor.get("/openapi.json").json()["paths"]
    views = ("overview", "discrepancies", "discrepancies.csv", "level", "bin", "models", "slices", "drift", "audits")
    lists = ("failed", "without-quantity", "without-photo", "variances")
    assert set(paths) == {
        *("/healthz", "/metrics", "/api/summary", "/photos/{count_id}"),
        *(f"/api/{view}" for view in views),
        *("/api/audit", "/api/audit/queue", "/api/audits/next", "/api/variances/{variance_id}"),
        *("/api/audit", "/api/audit/queue", "/api/audits/next", "/api/auditors"),
        *(f"/api/lists/{name}" for name in lists),
        *(f"/api/lists/{name}.{{form}}" for name in lists),
    }
    assert monitor.get("/docs").status_code == 404, "FastAPI's documentation loads scripts from other hosts"


@given(st.integers(0, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_contains_the_share_and_stays_within_bounds(case: tuple[int, int]) -> None:
    successes, trials = case
    interval = wilson(successes, trials)
    if not trials:
        assert interval is None
        return
    assert interval is not None
    assert 0 <= interval.low <= successes / trials <= interval.high <= 1


def test_wilson_against_a_published_value() -> None:
    """Newcombe 1998, table I, method 3: 81 of 263 gives 0.2553 to 0.3662."""
    interval = wilson(81, 263)
    assert interval is not None
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize(
    ("value", "sample_size", "text"),
    [
        (None, 0, "–"),
        (0.5, 4, "50\u202f%"),
        (2 / 3, 999, "67\u202f%"),
        (2 / 3, 1000, "66.7\u202f%"),
        (1.0, 1, "100\u202f%"),
    ],
)
def test_digits_of_a_share_depend_on_the_sample_size(value: float | None, sample_size: int, text: str) -> None:
    assert formatting.share(value, sample_size) == text


def test_numbers_in_words() -> None:
    assert formatting.number(1_234_567) == "1\u202f234\u202f567"
    assert formatting.reason("some_new_reason") == "some new reason"
