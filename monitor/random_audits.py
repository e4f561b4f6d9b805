"""How often counts and inventory are right, of all bins: what audits of bins drawn at random say of it."""

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
    CountedBin,
    first_blind_audit_of,
    first_blind_count_of,
    sample_counted_bins,
)
from binwatch.records.tables import Audit, AuditDraw, Count, Expectation
from monitor.estimates import FEWEST, Predictions, ShareEstimate, estimate
from monitor.summary import Interval
from monitor.totals import read_model_in_use

Draw = Row[*tuple[Any, ...]]
WINDOW = 2_000
"""Draws that are looked at: the last ones. More would tell hardly more, of what was true long ago."""
_SAMPLE = (4_096,)
"""Bins whose predictions stand for those of all; their error is part of the intervals."""


class RandomAudits(BaseModel):
    """Of all bins that the model in use has counted, as audits of bins drawn at random tell it."""

    model: str | None
    """The model in use."""
    draws: int
    """The last ones, 2,000 at most, by whichever model's counts."""
    audited: int
    """Those of them whose photo was audited blind, and the items were counted."""
    photos: int
    """Different photos among those: a photo that was drawn again counts again, with the answer that it has."""
    no_number: int
    """Those of them whose photo was audited blind, and no answer is a number of all items: no estimate has them."""
    left_out: float | None
    """Their share of all that were answered, 0 to 1; None if none was."""
    counts_audited: int
    """Those of them whose count is by the model in use."""
    records_audited: int
    """Those of them that had an expected quantity."""
    accuracy: ShareEstimate | None
    """Share of bins whose count is right; None if there are too few audits of counts of this model."""
    accuracy_bounds: Interval | None
    """At worst: the low end of the interval if each draw without a number were of a wrong count, and the high end if
    each were of a right one; without the model's predictions. None if each has a number, or there is no estimate."""
    inventory: ShareEstimate | None
    """Share of bins with an expected quantity whose quantity is right, item for item; the others are wrong records."""
    inventory_bounds: Interval | None
    """The same of the expected quantities."""
    fewest: int = FEWEST
    """Draws with a number that an estimate needs."""


def read_random_audits(connection: Connection) -> RandomAudits:
    """As of now. Costs one query where nothing was drawn."""
    in_use = read_model_in_use(connection)
    model = in_use.version if in_use else None
    statement = (
        select(AuditDraw.count_id, AuditDraw.likelihood, Count.model_version, Count.predicted, Count.probabilities)
        .add_columns(Audit.quantity, Expectation.quantity.label("expected"))
        .add_columns(first_blind_audit_of(AuditDraw.count_id).label("answered"))
        .join(Count, Count.id == AuditDraw.count_id)
        .outerjoin(Audit, Audit.id == first_blind_count_of(AuditDraw.count_id))
        .outerjoin(Expectation, Expectation.id == AuditDraw.expectation_id)
        .order_by(*LATEST_DRAW_FIRST)
        .limit(WINDOW)
    )
    draws = connection.execute(statement).all()
    counts = [row for row in draws if row.model_version == model]
    records = [row for row in draws if row.expected is not None]
    right_counts = _verdicts(counts, lambda row: row.predicted == class_of(row.quantity))
    right_records = _verdicts(records, lambda row: row.expected == row.quantity)
    audited = [row for row in draws if row.quantity is not None]
    no_number = sum(row.quantity is None and row.answered is not None for row in draws)
    enough = max(_answered(right_counts), _answered(right_records)) >= FEWEST
    # The same ids each time, so that figures do not tremble from scrape to scrape.
    sample = list(sample_counted_bins(connection, random.Random(0), _SAMPLE)) if enough else []  # noqa: S311 (no secret)
    accuracy = _estimate(
        right_counts,
        counts,
        lambda row: row.probabilities[row.predicted] if row.probabilities else None,
        [one.confidence for one in sample],
    )
    inventory = _estimate(
        right_records,
        records,
        # Another model's probabilities are not those of the sample: their difference would look like wrong records.
        lambda row: (
            row.probabilities[class_of(row.expected)] if row.probabilities and row.model_version == model else None
        ),
        [one.chance for one in _with_quantity(sample)],
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
    """Whether each is right; None of draws without a number of all items."""
    return [None if row.quantity is None else is_right(row) for row in draws]


def _answered(verdicts: list[bool | None]) -> int:
    return sum(verdict is not None for verdict in verdicts)


def _with_quantity(sample: list[CountedBin]) -> list[CountedBin]:
    return [one for one in sample if one.chance is not None]


def _estimate(
    verdicts: list[bool | None],
    draws: Sequence[Draw],
    prediction: Callable[[Draw], float | None],
    sample: list[float | None],
) -> ShareEstimate | None:
    """Without predictions, if some bins have none."""
    answered = [(verdict, row) for verdict, row in zip(verdicts, draws, strict=True) if verdict is not None]
    if len(answered) < FEWEST:
        return None
    given = ([verdict for verdict, _ in answered], [row.likelihood for _, row in answered])
    known = [p for p in (prediction(row) for _, row in answered) if p is not None]
    everywhere = [p for p in sample if p is not None]
    if len(known) < len(answered) or len(everywhere) < len(sample) or len(everywhere) < FEWEST:
        return estimate(*given)
    error = float(np.std(everywhere, ddof=1)) / math.sqrt(len(everywhere))
    return estimate(*given, Predictions(np.array(known), float(np.mean(everywhere)), error))


def _bounds(verdicts: list[bool | None], draws: Sequence[Draw]) -> Interval | None:
    """Nobody knows what draws without a number would have shown: at worst all the same. None if all have one."""
    if None not in verdicts:
        return None
    likelihoods = [row.likelihood for row in draws]
    all_wrong = estimate([verdict is True for verdict in verdicts], likelihoods)
    all_right = estimate([verdict is not False for verdict in verdicts], likelihoods)
    return Interval(low=all_wrong.interval.low, high=all_right.interval.high)
