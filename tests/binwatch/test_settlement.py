"""Computing the new state of a bin, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from binwatch.bundle import Calibration
from binwatch.conformal import PValueTable
from binwatch.records.models import CurrentCalibration
from binwatch.records.settlement import (
    BinFacts,
    LatestPhoto,
    LatestQuantity,
    ListedBin,
    PhotoState,
    QuantityState,
    RankKind,
    settle,
)
from tests.calibrations import UP_TO_20, category

AT = datetime(2026, 11, 20, tzinfo=UTC)
PROBABILITIES = [0.05, 0.05, 0.7, 0.05, 0.05, 0.05, 0.05]
PHOTO = LatestPhoto(
    count_id=1, model_version="v1", key="a.jpg", stored_at=AT, predicted=2, probabilities=PROBABILITIES, audit_id=9
)
FAILED = replace(PHOTO, predicted=None, probabilities=None)
QUANTITY = LatestQuantity(expectation_id=5, quantity=3)
UNREADABLE = replace(QUANTITY, quantity=None)
BIN = BinFacts(bucket="b", bin_id="a", photo=PHOTO, quantity=QUANTITY)
POOLED = category((0.1, 0.5, 0.5, 0.9), classes=UP_TO_20)
VALUES = CurrentCalibration(2, PValueTable(Calibration(photos=4, split="test", categories=(POOLED,))))


def test_a_new_pair_of_count_and_quantity_is_compared() -> None:
    settled = settle(BIN, VALUES)
    pair = {
        "bucket": "b",
        "bin_id": "a",
        "count_id": 1,
        "expectation_id": 5,
        "model_version": "v1",
        "predicted": 2,
        "expected": 3,
    }
    p_values = {"p_value": 0.4, "p_missing": 0.4, "p_surplus": 0.8}
    assert settled.comparison == pair | p_values | {"error": -1, "outcome": "under", "chance": 0.05}
    assert settled.current == pair | p_values | {
        "key": "a.jpg",
        "photo_at": AT,
        "difference": -1,
        "chance": 0.05,
        "calibration": 2,
        "doubt": 0.4,
        "doubt_one_sided": 0.4,
        "comparison_id": None,
        "audit_id": 9,
        "slice_id": None,
    }
    assert settled.ranked is RankKind.CALIBRATED


def test_without_calibration_there_is_no_p_value() -> None:
    settled = settle(BIN, None)
    assert settled.comparison is not None
    assert settled.current is not None
    assert (settled.comparison["p_value"], settled.current["doubt"]) == (None, 1.05)
    assert settled.ranked is RankKind.UNCALIBRATED


@pytest.mark.parametrize(
    ("photo", "quantity", "states"),
    [
        (None, QUANTITY, (PhotoState.NONE, QuantityState.KNOWN)),
        (FAILED, QUANTITY, (PhotoState.FAILED, QuantityState.KNOWN)),
        (PHOTO, None, (PhotoState.COUNTED, QuantityState.NONE)),
        (PHOTO, UNREADABLE, (PhotoState.COUNTED, QuantityState.UNREADABLE)),
        (FAILED, UNREADABLE, (PhotoState.FAILED, QuantityState.UNREADABLE)),
    ],
)
def test_a_bin_without_count_or_quantity_is_not_listed(
    photo: LatestPhoto | None, quantity: LatestQuantity | None, states: tuple[PhotoState, QuantityState]
) -> None:
    listed = ListedBin(comparison_id=7, expectation_id=4, calibration=2, ranked=RankKind.CALIBRATED)
    settled = settle(replace(BIN, photo=photo, quantity=quantity, listed=listed), VALUES)
    assert settled.states == states
    assert (settled.comparison, settled.current, settled.ranked) == (None, None, None)


def test_a_pair_is_compared_only_once() -> None:
    """The quantity returns after another one was expected for a while. The bin is listed with its current p-values."""
    listed = ListedBin(comparison_id=8, expectation_id=4, calibration=0, ranked=RankKind.UNCALIBRATED)
    settled = settle(replace(BIN, listed=listed, comparison_id=7), VALUES)
    assert settled.comparison is None
    assert settled.current is not None
    assert (settled.current["comparison_id"], settled.current["expectation_id"]) == (7, 5)
    assert (settled.current["p_value"], settled.ranked) == (0.4, RankKind.CALIBRATED)


def test_a_new_calibration_updates_the_listed_p_values() -> None:
    listed = ListedBin(comparison_id=7, expectation_id=5, calibration=1, ranked=RankKind.CALIBRATED)
    settled = settle(replace(BIN, listed=listed, comparison_id=7), VALUES)
    assert settled.comparison is None
    assert settled.current is not None
    assert (settled.current["p_value"], settled.current["calibration"]) == (0.4, 2)


def test_the_same_quantity_from_another_file_updates_only_the_reference() -> None:
    listed = ListedBin(comparison_id=7, expectation_id=4, calibration=2, ranked=RankKind.CALIBRATED)
    settled = settle(replace(BIN, listed=listed, comparison_id=7), VALUES)
    assert settled.comparison is None
    assert settled.current is not None
    assert settled.current["expectation_id"] == 5


def test_an_unchanged_bin_is_not_written() -> None:
    listed = ListedBin(comparison_id=7, expectation_id=5, calibration=2, ranked=RankKind.CALIBRATED)
    settled = settle(replace(BIN, listed=listed, comparison_id=7), VALUES)
    assert (settled.comparison, settled.current, settled.ranked) == (None, None, RankKind.CALIBRATED)


def test_quantities_beyond_five_are_listed_with_their_difference() -> None:
    """17 and 40 agree as classes, which is what the outcome compares, but the listed difference is in items."""
    distribution = [0.0] * 6 + [0.005] * 10 + [0.15, 0.5, 0.2, 0.05, 0.03, 0.02]
    photo = replace(PHOTO, predicted=6, probabilities=[0.0] * 6 + [1.0], distribution=distribution)
    settled = settle(replace(BIN, photo=photo, quantity=LatestQuantity(expectation_id=5, quantity=40)), VALUES)
    assert settled.comparison is not None
    assert settled.current is not None
    assert (settled.comparison["error"], settled.comparison["outcome"]) == (0, "exact")
    assert (settled.current["difference"], settled.current["doubt_one_sided"]) == (-23, 0.2)
