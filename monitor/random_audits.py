"""How often counts and inventory are right, of all bins: what audits of bins drawn at random say of it."""

from __future__ import annotations

import math
import random

import numpy as np
from pydantic import BaseModel
from sqlalchemy import Connection, select

from binwatch.counts import class_of
from binwatch.records.draws import LAST_DRAWN, CountedBin, answer_of, any_answer_of, counted_bins
from binwatch.records.tables import Audit, AuditDraw, Count, Expectation
from monitor.estimates import FEWEST, Predictions, ShareEstimate, estimate
from monitor.totals import read_model_in_use

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
    inventory: ShareEstimate | None
    """Share of bins with an expected quantity whose quantity is right, item for item; the others are wrong records."""
    fewest: int = FEWEST
    """Audits that an estimate needs."""


def read_random_audits(connection: Connection) -> RandomAudits:
    """As of now. Costs one query where nothing was drawn."""
    in_use = read_model_in_use(connection)
    model = in_use.version if in_use else None
    statement = (
        select(AuditDraw.likelihood, Count.model_version, Count.predicted, Count.probabilities)
        .add_columns(Audit.quantity, Expectation.quantity.label("expected"))
        .add_columns(any_answer_of(AuditDraw.count_id).label("answered"))
        .join(Count, Count.id == AuditDraw.count_id)
        .outerjoin(Audit, Audit.id == answer_of(AuditDraw.count_id))
        .outerjoin(Expectation, Expectation.id == AuditDraw.expectation_id)
        .order_by(*LAST_DRAWN)
        .limit(WINDOW)
    )
    draws = connection.execute(statement).all()
    audited = [row for row in draws if row.quantity is not None]
    no_number = sum(row.quantity is None and row.answered is not None for row in draws)
    counts = [row for row in audited if row.model_version == model]
    records = [row for row in audited if row.expected is not None]
    enough = max(len(counts), len(records)) >= FEWEST
    # The same ids each time, so that figures do not tremble from scrape to scrape.
    sample = list(counted_bins(connection, random.Random(0), _SAMPLE)) if enough else []  # noqa: S311 (no secret)
    accuracy = _estimate(
        [row.predicted == class_of(row.quantity) for row in counts],
        [row.likelihood for row in counts],
        [row.probabilities[row.predicted] if row.probabilities else None for row in counts],
        [one.confidence for one in sample],
    )
    inventory = _estimate(
        [row.expected == row.quantity for row in records],
        [row.likelihood for row in records],
        # Another model's probabilities are not those of the sample: their difference would look like wrong records.
        [
            row.probabilities[class_of(row.expected)] if row.probabilities and row.model_version == model else None
            for row in records
        ],
        [one.chance for one in _with_quantity(sample)],
    )
    return RandomAudits(
        model=model,
        draws=len(draws),
        audited=len(audited),
        no_number=no_number,
        left_out=no_number / (no_number + len(audited)) if no_number or audited else None,
        counts_audited=len(counts),
        records_audited=len(records),
        accuracy=accuracy,
        inventory=inventory,
    )


def _with_quantity(sample: list[CountedBin]) -> list[CountedBin]:
    return [one for one in sample if one.chance is not None]


def _estimate(
    answers: list[bool], likelihoods: list[float], drawn: list[float | None], sample: list[float | None]
) -> ShareEstimate | None:
    """Without predictions, if some bins have none."""
    if len(answers) < FEWEST:
        return None
    known, everywhere = [p for p in drawn if p is not None], [p for p in sample if p is not None]
    if len(known) < len(drawn) or len(everywhere) < len(sample) or len(everywhere) < FEWEST:
        return estimate(answers, likelihoods)
    error = float(np.std(everywhere, ddof=1)) / math.sqrt(len(everywhere))
    return estimate(answers, likelihoods, Predictions(np.array(known), float(np.mean(everywhere)), error))
