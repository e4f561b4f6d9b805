"""Computes the new state of a bin from its previous state and its latest photo and quantity.

This module needs no database: settle_bins reads and writes it. Each pair of a count and a quantity is compared only
once: an inventory that repeats a quantity every night adds no evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from binwatch.conformal import Judgement, judge
from binwatch.counts import class_error, estimate_large_count, item_difference, outcome_of
from binwatch.records.models import CurrentCalibration

Row = dict[str, Any]
"""Column → value."""
UNKNOWN_DOUBT = 3.0
"""Doubt of a bin without a probability of the expected quantity. All other bins have at most 2."""


class PhotoState(StrEnum):
    """State of a bin's latest photo. NONE if there is none."""

    COUNTED = "counted"
    FAILED = "failed"
    NONE = "none"


class QuantityState(StrEnum):
    """State of a bin's latest expected quantity. NONE if there is none."""

    KNOWN = "known"
    UNREADABLE = "unreadable"
    NONE = "none"


States = tuple[PhotoState, QuantityState]


class RankKind(StrEnum):
    """Value by which a bin is ranked."""

    CALIBRATED = "calibrated"
    """The p-value."""
    UNCALIBRATED = "uncalibrated"
    """The probability of the expected quantity, or UNKNOWN_DOUBT without one."""


@dataclass(frozen=True, slots=True)
class LatestPhoto:
    """A bin's latest photo, with a model's count of it."""

    count_id: int
    model_version: str
    key: str
    stored_at: datetime
    """Time at which S3 stored the photo."""
    predicted: int | None
    """Predicted class; None if the photo could not be counted."""
    probabilities: Sequence[float] | None = None
    distribution: Sequence[float] | None = None
    audit_id: int | None = None
    """The last audit of this photo, even if it judged another model's count."""
    slice_id: int | None = None


@dataclass(frozen=True, slots=True)
class LatestQuantity:
    """A bin's latest expected quantity."""

    expectation_id: int
    quantity: int | None
    """None if it could not be read."""


@dataclass(frozen=True, slots=True)
class ListedBin:
    """A bin's row in `current_comparisons`."""

    comparison_id: int
    expectation_id: int
    calibration: int
    """Number of the calibration that judged the bin (binwatch.records.models.CurrentCalibration); 0 without one."""
    ranked: RankKind


@dataclass(frozen=True, slots=True, kw_only=True)
class BinFacts:
    """The previous state of a bin, and its latest photo and quantity."""

    bucket: str
    bin_id: str
    states: States | None = None
    """The states under which `bin_totals` includes the bin; None if the bin is new."""
    listed: ListedBin | None = None
    """None if the bin could not be compared so far."""
    photo: LatestPhoto | None = None
    quantity: LatestQuantity | None = None
    comparison_id: int | None = None
    """The comparison of this count and this quantity; None if there is none yet."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """The new state of a bin. The writer adds the times, and the id of a new comparison."""

    facts: BinFacts
    states: States
    comparison: Row | None = None
    """Row to append to `comparisons`; None if this count and this quantity were compared before."""
    current: Row | None = None
    """Row to write to `current_comparisons`; None if it stays as it is."""
    ranked: RankKind | None = None
    """None if the bin cannot be compared, so that it has no row in `current_comparisons`."""


def settle(facts: BinFacts, calibration: CurrentCalibration | None) -> Settlement:
    """Compare the latest count with the latest quantity, unless one of them is missing.

    `calibration` is the current one of the count's model; None if it has none. A row of `current_comparisons` that
    already has this count, quantity and calibration stays as it is; otherwise it gets the current p-values. A pair that
    was compared before gets no new comparison: the ledger keeps its first p-values.
    """
    photo, quantity, states = facts.photo, facts.quantity, _states(facts)
    if photo is None or photo.predicted is None or quantity is None or quantity.quantity is None:
        return Settlement(facts, states)
    number, p_values = calibration or (0, None)
    listed, current_ids = facts.listed, (facts.comparison_id, quantity.expectation_id, number)
    if listed and (listed.comparison_id, listed.expectation_id, listed.calibration) == current_ids:
        return Settlement(facts, states, ranked=listed.ranked)
    pair = {
        "bucket": facts.bucket,
        "bin_id": facts.bin_id,
        "count_id": photo.count_id,
        "expectation_id": quantity.expectation_id,
        "model_version": photo.model_version,
        "predicted": photo.predicted,
        "expected": quantity.quantity,
    }
    judgement = judge(photo.probabilities, quantity.quantity, p_values, photo.distribution)
    difference = item_difference(
        photo.predicted, quantity.quantity, estimate_large_count(photo.predicted, photo.distribution)
    )
    current = pair | {
        **rank_columns(judgement, difference, number),
        "key": photo.key,
        "photo_at": photo.stored_at,
        "difference": difference,
        "comparison_id": facts.comparison_id,
        "audit_id": photo.audit_id,
        "slice_id": photo.slice_id,
    }
    is_new = facts.comparison_id is None
    comparison = pair | _comparison_columns(photo.predicted, quantity.quantity, judgement) if is_new else None
    return Settlement(facts, states, comparison, current, rank_kind(judgement.either))


def rank_kind(p_value: float | None) -> RankKind:
    """Return the value by which a bin with this p-value is ranked."""
    return RankKind.UNCALIBRATED if p_value is None else RankKind.CALIBRATED


def doubt_of(chance: float | None, p_value: float | None) -> float:
    """Return the rank key, smallest first: the p-value, or a larger number than any p-value if there is none."""
    if p_value is not None:
        return p_value
    return UNKNOWN_DOUBT if chance is None else 1 + chance


def rank_columns(judgement: Judgement, difference: int, calibration: int) -> Row:
    """Return the columns of `current_comparisons` for a judgement. `calibration` is its number, 0 without one."""
    return {
        "calibration": calibration,
        "chance": 1.0 if judgement.chance is None else judgement.chance,
        "p_value": judgement.either,
        "p_missing": judgement.missing,
        "p_surplus": judgement.surplus,
        "doubt": doubt_of(judgement.chance, judgement.either),
        "doubt_one_sided": doubt_of(judgement.chance, judgement.missing if difference < 0 else judgement.surplus),
    }


def _states(facts: BinFacts) -> States:
    photo, quantity = PhotoState.NONE, QuantityState.NONE
    if facts.photo:
        photo = PhotoState.FAILED if facts.photo.predicted is None else PhotoState.COUNTED
    if facts.quantity:
        quantity = QuantityState.UNREADABLE if facts.quantity.quantity is None else QuantityState.KNOWN
    return photo, quantity


def _comparison_columns(predicted: int, quantity: int, judgement: Judgement) -> Row:
    return {
        "error": class_error(predicted, quantity),
        "outcome": outcome_of(predicted, quantity).value,
        "chance": judgement.chance,
        "p_value": judgement.either,
        "p_missing": judgement.missing,
        "p_surplus": judgement.surplus,
    }
