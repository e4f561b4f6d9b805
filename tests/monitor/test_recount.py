"""Every figure of a long random history, recomputed by plain arithmetic without the monitor's code.

Photos arrive late, twice and out of order, from two models with different clocks; quantities are corrected, far beyond
5, or unreadable; some bins lack a photo or a quantity.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count as counter

import pytest
from scipy.stats import binomtest
from sqlalchemy import Engine

from binwatch.bundle import Calibration
from binwatch.errors import MetadataReason, Reason
from binwatch.records.store import NewCount, NewExpectation, Store
from tests.calibrations import category
from tests.monitor.conftest import Running, running_monitor
from tests.monitor.drifting import BUCKET, DAY

BINS = [f"bin {number}" for number in range(25)]
MODELS = ("v1", "v2")
ALPHA = 0.2
SCORES = {"v1": (0.1, 0.3, 0.35, 0.5, 0.5, 0.8, 0.93), "v2": (0.2, 0.4, 0.6, 0.99)}
"""Scores of the calibration photos by model: 1 − the probability of the true quantity."""


@dataclass
class _Photo:
    number: int
    at: datetime
    model: str
    probabilities: list[float] | None

    @property
    def predicted(self) -> int:
        assert self.probabilities
        return self.probabilities.index(max(self.probabilities))


@dataclass
class _Quantity:
    number: int
    at: datetime
    quantity: int | None


@dataclass
class _History:
    """The recorded history, kept as lists."""

    store: Store
    chance: random.Random
    number: Iterator[int] = field(default_factory=counter)
    photos: dict[str, list[_Photo]] = field(default_factory=lambda: {name: [] for name in BINS})
    quantities: dict[str, list[_Quantity]] = field(default_factory=lambda: {name: [] for name in BINS})
    compared: dict[tuple[int, int], tuple[_Photo, int]] = field(default_factory=dict)
    """Each pair of a photo and a quantity that was compared, once."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def at(self) -> datetime:
        """Return a random time by a clock that may be an hour off."""
        return DAY + timedelta(minutes=self.chance.randrange(2_000), hours=self.chance.choice((-1, 0, 0, 1)))

    def photo(self, bin_id: str) -> None:
        number, model = next(self.number), self.chance.choice(MODELS)
        weights = [self.chance.random() ** 3 for _ in range(7)]
        probabilities = [weight / sum(weights) for weight in weights] if self.chance.random() < 0.85 else None
        at = self.at()
        count = NewCount(
            bucket=BUCKET,
            key=f"bin-images/{bin_id}.jpg",
            etag=f"{number}",
            model_version=model,
            precision="int8",
            provider="CPUExecutionProvider",
            modified_at=at,
            predicted=None if probabilities is None else probabilities.index(max(probabilities)),
            probabilities=probabilities,
            reason=Reason.CORRUPT if probabilities is None else None,
        )
        assert self.store.add_counts([count]) == 1
        assert self.store.add_counts([count]) == 0
        self.photos[bin_id].append(_Photo(number, at, model, probabilities))
        self.counts[model, "" if probabilities else "corrupt"] += 1
        self.compare(bin_id)

    def quantity(self, bin_id: str) -> None:
        number, at = next(self.number), self.at()
        quantity = self.chance.choice((None, 0, 1, 2, 3, 4, 5, 6, 7, 40, 1_000_000))
        reason = MetadataReason.BAD_QUANTITY if quantity is None else None
        row = NewExpectation(
            bucket=BUCKET,
            bin_id=bin_id,
            source="s",
            etag=f"{number}",
            modified_at=at,
            quantity=quantity,
            reason=reason,
        )
        assert self.store.add_expectations([row, row]) == 1
        self.quantities[bin_id].append(_Quantity(number, at, quantity))
        self.compare(bin_id)

    def current_pair(self, bin_id: str) -> tuple[_Photo, int] | None:
        """Return the latest photo and quantity of a bin by object time, or None if either is missing or unreadable."""
        if not self.photos[bin_id] or not self.quantities[bin_id]:
            return None
        photo = max(self.photos[bin_id], key=lambda entry: (entry.at, entry.number))
        quantity = max(self.quantities[bin_id], key=lambda entry: (entry.at, entry.number))
        return None if photo.probabilities is None or quantity.quantity is None else (photo, quantity.quantity)

    def compare(self, bin_id: str) -> None:
        if pair := self.current_pair(bin_id):
            self.compared[pair[0].number, pair[1]] = pair


def _p_value(photo: _Photo, quantity: int) -> float:
    assert photo.probabilities
    index = min(quantity, 6)
    score = max(sum(photo.probabilities[:index]), sum(photo.probabilities[index + 1 :]))
    scores = SCORES[photo.model]
    return (1 + sum(other >= score for other in scores)) / (1 + len(scores))


def _error(photo: _Photo, quantity: int) -> int:
    return photo.predicted - min(quantity, 6)


def _difference(photo: _Photo, quantity: int) -> int:
    """Return count − quantity, where "more than 5" equals any quantity above 5."""
    return 0 if photo.predicted == 6 and quantity > 5 else photo.predicted - quantity


@pytest.fixture
def history(records_engine: Engine) -> _History:
    store = Store(records_engine)
    for model, scores in SCORES.items():
        pooled = category(scores)
        store.use_model(model, Calibration(photos=len(scores), split="test", categories=(pooled,)))
    built = _History(store, random.Random(11))
    for _ in range(200):
        bin_id = built.chance.choice(BINS)
        (built.photo if built.chance.random() < 0.6 else built.quantity)(bin_id)
    return built


@pytest.fixture
def site(history: _History, records_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setenv("BINWATCH_DATABASE_URL", records_engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_BUCKET", BUCKET)
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BINWATCH_FLAG_LEVEL", str(ALPHA))
    with running_monitor() as running:
        yield running


def test_every_figure_equals_an_independent_recount(history: _History, site: Running) -> None:
    _check_metrics(history, site)
    for model in MODELS:
        _check_summary(history, site, model)
    _check_list(history, site)
    _check_bins(history, site)
    _check_estimate(history, site)


def _check_metrics(history: _History, site: Running) -> None:
    comparisons, absolute, squared, within = Counter[object](), Counter[object](), Counter[object](), Counter[object]()
    for photo, quantity in history.compared.values():
        error, expected = _error(photo, quantity), "more" if quantity > 5 else str(quantity)
        outcome = "exact" if error == 0 else "under" if error < 0 else "over"
        comparisons[photo.model, expected, outcome] += 1
        absolute[photo.model, expected, outcome] += abs(error)
        squared[photo.model, expected] += error**2
        within[photo.model, expected] += abs(error) <= 1
    metrics = site.metrics()
    for name, labels, cells in (
        ("binwatch_comparisons_total", ("model", "expected", "outcome"), comparisons),
        ("binwatch_absolute_error_items_total", ("model", "expected", "outcome"), absolute),
        ("binwatch_squared_error_total", ("model", "expected"), squared),
        ("binwatch_comparisons_within_one_total", ("model", "expected"), within),
    ):
        cells_of_metric = {
            tuple(dict(row)[label] for label in labels): value for row, value in metrics[name].items() if value
        }
        assert cells_of_metric == {cell: value for cell, value in cells.items() if value}, name
    photos = {
        (dict(row)["model"], dict(row)["reason"]): value
        for row, value in metrics["binwatch_photos_total"].items()
        if value
    }
    assert photos == dict(history.counts)


def _check_summary(history: _History, site: Running, model: str) -> None:
    errors = [_error(*pair) for pair in history.compared.values() if pair[0].model == model]
    summary = site.get(f"/api/summary?model={model}").json()["agreement"]
    exact = sum(error == 0 for error in errors)
    assert summary["total"] == {
        "comparisons": len(errors),
        "exact": exact,
        "under": sum(error < 0 for error in errors),
        "over": sum(error > 0 for error in errors),
        "agreement": pytest.approx(exact / len(errors)),
        "within_one": pytest.approx(sum(abs(error) <= 1 for error in errors) / len(errors)),
        "mae": pytest.approx(sum(map(abs, errors)) / len(errors)),
        "rmse": pytest.approx(math.sqrt(sum(error**2 for error in errors) / len(errors))),
    }
    low, high = binomtest(exact, len(errors)).proportion_ci(0.95, "wilson")
    assert summary["interval"] == {"low": pytest.approx(low, abs=1e-6), "high": pytest.approx(high, abs=1e-6)}


def _check_list(history: _History, site: Running) -> None:
    current = {bin_id: pair for bin_id in BINS if (pair := history.current_pair(bin_id))}
    p_values = {bin_id: _p_value(*pair) for bin_id, pair in current.items()}
    flagged = {bin_id for bin_id, pair in current.items() if p_values[bin_id] <= ALPHA and _error(*pair)}
    level = site.get("/api/level").json()
    assert level["compared"] == level["calibrated"] == len(current) > 10
    assert (level["flagged"], level["false_flags"]) == (len(flagged), pytest.approx(ALPHA * len(current)))
    assert flagged
    result = site.get("/api/discrepancies?direction=all&limit=200").json()["items"]
    assert {item["bin_id"]: (item["expected"], item["predicted"], item["difference"]) for item in result} == {
        bin_id: (quantity, photo.predicted, _difference(photo, quantity))
        for bin_id, (photo, quantity) in current.items()
    }
    assert {item["bin_id"] for item in result if item["flagged"]} == flagged
    for item in result:
        assert item["p_value"] == pytest.approx(p_values[item["bin_id"]])
    ranked = sorted((item["p_value"], item["chance"]) for item in result)
    assert [(item["p_value"], item["chance"]) for item in result] == ranked


def _check_bins(history: _History, site: Running) -> None:
    states = Counter[tuple[str, str]]()
    for bin_id in BINS:
        photo = max(history.photos[bin_id], key=lambda entry: (entry.at, entry.number), default=None)
        quantity = max(history.quantities[bin_id], key=lambda entry: (entry.at, entry.number), default=None)
        states[
            "none" if photo is None else "counted" if photo.probabilities else "failed",
            "none" if quantity is None else "unreadable" if quantity.quantity is None else "known",
        ] += 1
    del states["none", "none"]
    result = site.metrics()["binwatch_bins"].items()
    assert {(dict(row)["photo"], dict(row)["expected"]): bins for row, bins in result if bins} == dict(states)


def _check_estimate(history: _History, site: Running) -> None:
    """Without a reference the estimate is the mean top probability of all counted photos of this hour or the last."""
    top = [max(item.probabilities) for photos in history.photos.values() for item in photos if item.probabilities]
    buckets = [item for item in site.get("/api/overview?span=1d").json()["trend"]["buckets"] if item["photos"]]
    assert sum(item["photos"] for item in buckets) == len(top)
    mean = sum(item["photos"] * item["estimated"] for item in buckets) / len(top)
    assert mean == pytest.approx(sum(top) / len(top))
    assert sum(item["comparisons"] for item in buckets) == len(history.compared)
    assert sum(item["exact"] for item in buckets) == sum(not _error(*pair) for pair in history.compared.values())
