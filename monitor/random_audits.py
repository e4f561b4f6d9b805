"""Accuracy of counts and inventory over all bins, estimated from audits of randomly drawn bins."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel
from sqlalchemy import Connection, Row, select

from binwatch.counts import class_of
from binwatch.records.draws import (
    LATEST_DRAW_FIRST,
    first_blind_audit_of,
    first_blind_exact_audit_of,
    sample_counted_bins,
)
from binwatch.records.tables import Audit, AuditDraw, Count, Expectation
from monitor.estimates import MIN_AUDITS, Predictions, ShareEstimate, estimate
from monitor.summary import Interval
from monitor.totals import read_model_in_use

Draw = Row[*tuple[Any, ...]]
MAX_DRAWS = 2_000
"""Maximum number of draws used, the latest ones. More would add little, and describe the distant past."""
_IDS_PER_QUERY = (4_096,)
"""Number of random count ids to look up. The predictions of their bins represent those of all bins, and the sampling
error is part of the intervals."""


class RandomAudits(BaseModel):
    """Estimates for all bins that the model in use has counted, from audits of randomly drawn bins."""

    model: str | None
    """The model in use."""
    draws: int
    """Number of the latest draws, at most 2,000, of counts by any model."""
    audited: int
    """Draws whose photo was audited blind with an exact number."""
    photos: int
    """Number of different photos among the audited draws. In the estimates, a photo counts as often as it is drawn."""
    no_number: int
    """Draws whose photo was audited blind without an exact number. They are left out of all estimates."""
    left_out: float | None
    """Their share of all answered draws, 0 to 1; None if there are none."""
    counts_audited: int
    """Audited draws whose count is by the model in use."""
    records_audited: int
    """Audited draws with an expected quantity."""
    accuracy: ShareEstimate | None
    """Share of bins whose count is right; None if there are too few audits of counts of this model."""
    accuracy_bounds: Interval | None
    """Worst case, computed without the model's predictions: the low end of the interval if all draws without a number
    had a wrong count, and the high end if all had a right one. None if all have a number, or there is no estimate."""
    inventory: ShareEstimate | None
    """Share of bins with an expected quantity whose quantity is exactly right; the others are wrong records."""
    inventory_bounds: Interval | None
    """The same as `accuracy_bounds`, for the expected quantities."""
    fewest: int = MIN_AUDITS
    """Minimum number of draws with a number for an estimate."""


def read_random_audits(connection: Connection) -> RandomAudits:
    """Read the latest draws and compute the estimates. A sample of all bins is read only if there are enough audits."""
    in_use = read_model_in_use(connection)
    model = in_use.version if in_use else None
    statement = (
        select(AuditDraw.count_id, AuditDraw.likelihood, Count.model_version, Count.predicted, Count.probabilities)
        .add_columns(Audit.quantity, Expectation.quantity.label("expected"))
        .add_columns(first_blind_audit_of(AuditDraw.count_id).label("answered"))
        .join(Count, Count.id == AuditDraw.count_id)
        .outerjoin(Audit, Audit.id == first_blind_exact_audit_of(AuditDraw.count_id))
        .outerjoin(Expectation, Expectation.id == AuditDraw.expectation_id)
        .order_by(*LATEST_DRAW_FIRST)
        .limit(MAX_DRAWS)
    )
    draws = connection.execute(statement).all()
    counts = [row for row in draws if row.model_version == model]
    records = [row for row in draws if row.expected is not None]
    right_counts = _verdicts(counts, lambda row: row.predicted == class_of(row.quantity))
    right_records = _verdicts(records, lambda row: row.expected == row.quantity)
    audited = [row for row in draws if row.quantity is not None]
    no_number = sum(row.quantity is None and row.answered is not None for row in draws)
    has_enough = max(_answered(right_counts), _answered(right_records)) >= MIN_AUDITS
    # A fixed seed, so that figures do not fluctuate from scrape to scrape.
    generator = random.Random(0)  # noqa: S311 (not used for security)
    sample = list(sample_counted_bins(connection, generator, _IDS_PER_QUERY)) if has_enough else []
    accuracy = _estimate(
        right_counts,
        counts,
        lambda row: row.probabilities[row.predicted] if row.probabilities else None,
        [bin_.confidence for bin_ in sample],
    )
    inventory = _estimate(
        right_records,
        records,
        # Not another model's probabilities: the difference between the models would look like wrong records.
        lambda row: (
            row.probabilities[class_of(row.expected)] if row.probabilities and row.model_version == model else None
        ),
        [bin_.chance for bin_ in sample if bin_.chance is not None],
    )
    return RandomAudits(
        model=model,
        draws=len(draws),
        audited=len(audited),
        photos=len({row.count_id for row in audited}),
        no_number=no_number,
        left_out=no_number / (no_number + len(audited)) if no_number or audited else None,
        counts_audited=_answered(right_counts),
        records_audited=_answered(right_records),
        accuracy=accuracy,
        accuracy_bounds=_bounds(right_counts, counts) if accuracy else None,
        inventory=inventory,
        inventory_bounds=_bounds(right_records, records) if inventory else None,
    )


def _verdicts(draws: Sequence[Draw], is_right: Callable[[Draw], bool]) -> list[bool | None]:
    """Return whether each draw is right; None for a draw without an exact number."""
    return [None if row.quantity is None else is_right(row) for row in draws]


def _answered(verdicts: list[bool | None]) -> int:
    return sum(verdict is not None for verdict in verdicts)


def _estimate(
    verdicts: list[bool | None],
    draws: Sequence[Draw],
    prediction: Callable[[Draw], float | None],
    sample: list[float | None],
) -> ShareEstimate | None:
    """Estimate a share; None with too few audits. Predictions are used if all drawn and sampled bins have one."""
    answered = [(verdict, row) for verdict, row in zip(verdicts, draws, strict=True) if verdict is not None]
    if len(answered) < MIN_AUDITS:
        return None
    audits = ([verdict for verdict, _ in answered], [row.likelihood for _, row in answered])
    drawn = [p for p in (prediction(row) for _, row in answered) if p is not None]
    sampled = [p for p in sample if p is not None]
    if len(drawn) < len(answered) or len(sampled) < len(sample) or len(sampled) < MIN_AUDITS:
        return estimate(*audits)
    error = float(np.std(sampled, ddof=1)) / math.sqrt(len(sampled))
    return estimate(*audits, Predictions(np.array(drawn), float(np.mean(sampled)), error))


def _bounds(verdicts: list[bool | None], draws: Sequence[Draw]) -> Interval | None:
    """Return the interval from the case that all draws without a number are wrong to the case that all are right.

    None if every draw has a number.
    """
    if None not in verdicts:
        return None
    likelihoods = [row.likelihood for row in draws]
    all_wrong = estimate([verdict is True for verdict in verdicts], likelihoods)
    all_right = estimate([verdict is not False for verdict in verdicts], likelihoods)
    return Interval(low=all_wrong.interval.low, high=all_right.interval.high)
