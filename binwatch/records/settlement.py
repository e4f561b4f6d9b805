"""Computes the new state of a bin from its previous state and its latest photo and quantity.

Without a database, which settle_bins reads and writes. Each pair of a count and a quantity is compared only once: an
inventory that repeats a quantity every night gives no new evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from binwatch.conformal import Judgement, judge
from binwatch.counts import class_error, estimate_large_count, item_difference, outcome_of
from binwatch.records.models import Calibrated

Row = dict[str, Any]
"""Column → value."""
UNKNOWN = 3.0
"""Doubt of a bin without a probability of the expected quantity; larger than that of certain bins, which is 2."""


class PhotoState(StrEnum):
    """State of a bin's latest photo."""

    COUNTED = "counted"
    FAILED = "failed"
    NONE = "none"


class QuantityState(StrEnum):
    """State of a bin's latest expected quantity."""

    KNOWN = "known"
    UNREADABLE = "unreadable"
    NONE = "none"


States = tuple[PhotoState, QuantityState]


class Ranked(StrEnum):
    """The figure by which a bin is ranked."""

    CALIBRATED = "calibrated"
    """The p-value."""
    UNCALIBRATED = "uncalibrated"
    """The probability of the expected quantity, or none."""


@dataclass(frozen=True, slots=True)
class LatestPhoto:
    """A bin's latest photo, as a model counted it."""

    count_id: int
    model_version: str
    key: str
    at: datetime
    """When S3 stored it."""
    predicted: int | None
    """Class; None if it could not be counted."""
    probabilities: Sequence[float] | None = None
    distribution: Sequence[float] | None = None
    audit_id: int | None = None
    """The last audit of this photo, also if it judged another model's count."""
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
    """Number of the calibration that judged it (binwatch.records.models.Calibrated); 0 without one."""
    ranked: Ranked


@dataclass(frozen=True, slots=True, kw_only=True)
class BinFacts:
    """The previous state of a bin, and its latest photo and quantity."""

    bucket: str
    bin_id: str
    states: States | None = None
    """The states with which the bin is counted in `bin_totals`; None if it is new."""
    listed: ListedBin | None = None
    """None if the bin could not be compared before."""
    photo: LatestPhoto | None = None
    quantity: LatestQuantity | None = None
    comparison_id: int | None = None
    """The comparison of this count and this quantity; None if there is none yet."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """The new state of a bin. The writer adds times, and the id of an appended comparison."""

    facts: BinFacts
    states: States
    comparison: Row | None = None
    """Row to append to `comparisons`; None if the two were compared before."""
    current: Row | None = None
    """Row to write to `current_comparisons`; None if that does not change."""
    ranked: Ranked | None = None
    """None if the bin cannot be compared: then it has no row in `current_comparisons`."""


def settle(facts: BinFacts, calibrated: Calibrated | None) -> Settlement:
    """Compare the latest count with the latest quantity, unless one of them is missing or they were compared before.

    `calibrated` is the present calibration of the count's model. The ledger keeps a comparison's first p-values; the
    bin is listed with the present ones.
    """
    photo, quantity, states = facts.photo, facts.quantity, _states(facts)
    if photo is None or photo.predicted is None or quantity is None or quantity.quantity is None:
        return Settlement(facts, states)
    number, values = calibrated or (0, None)
    listed, now = facts.listed, (facts.comparison_id, quantity.expectation_id, number)
    if listed and (listed.comparison_id, listed.expectation_id, listed.calibration) == now:
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
    judged = judge(photo.probabilities, quantity.quantity, values, photo.distribution)
    difference = item_difference(
        photo.predicted, quantity.quantity, estimate_large_count(photo.predicted, photo.distribution)
    )
    current = pair | {
        **rank_columns(judged, difference, number),
        "key": photo.key,
        "photo_at": photo.at,
        "difference": difference,
        "comparison_id": facts.comparison_id,
        "audit_id": photo.audit_id,
        "slice_id": photo.slice_id,
    }
    is_new = facts.comparison_id is None
    comparison = pair | _comparison(photo.predicted, quantity.quantity, judged) if is_new else None
    return Settlement(facts, states, comparison, current, ranked_by(judged.either))


def ranked_by(p_value: float | None) -> Ranked:
    """The figure by which a bin with this p-value is ranked."""
    return Ranked.UNCALIBRATED if p_value is None else Ranked.CALIBRATED


def doubt_of(chance: float | None, p_value: float | None) -> float:
    """The rank key, least first: the p-value; bins without one come after all others."""
    if p_value is not None:
        return p_value
    return UNKNOWN if chance is None else 1 + chance


def rank_columns(judged: Judgement, difference: int, calibration: int) -> Row:
    """The columns of `current_comparisons` for a judgement by calibration number `calibration` (0 without one)."""
    return {
        "calibration": calibration,
        "chance": 1.0 if judged.chance is None else judged.chance,
        "p_value": judged.either,
        "p_missing": judged.missing,
        "p_surplus": judged.surplus,
        "doubt": doubt_of(judged.chance, judged.either),
        "doubt_one_sided": doubt_of(judged.chance, judged.missing if difference < 0 else judged.surplus),
    }


def _states(facts: BinFacts) -> States:
    photo, quantity = PhotoState.NONE, QuantityState.NONE
    if facts.photo:
        photo = PhotoState.FAILED if facts.photo.predicted is None else PhotoState.COUNTED
    if facts.quantity:
        quantity = QuantityState.UNREADABLE if facts.quantity.quantity is None else QuantityState.KNOWN
    return photo, quantity


def _comparison(predicted: int, quantity: int, judged: Judgement) -> Row:
    return {
        "error": class_error(predicted, quantity),
        "outcome": outcome_of(predicted, quantity).value,
        "chance": judged.chance,
        "p_value": judged.either,
        "p_missing": judged.missing,
        "p_surplus": judged.surplus,
    }
