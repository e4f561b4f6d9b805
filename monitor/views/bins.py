"""One bin: its latest photo and count, its expected quantity, and its history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, RowMapping, Select, select

from binwatch.counts import (
    CLASSES,
    Outcome,
    Suspicion,
    class_of,
    describe_difference,
    estimate_large_count,
    outcome_of_difference,
)
from binwatch.keys import normalise_bin_id
from binwatch.metadata import MAX_ARTICLES
from binwatch.records.audits import AuditAnswer, AuditReason, UnknownBin, verdict_on_count, verdict_on_quantity
from binwatch.records.engine import is_storable
from binwatch.records.tables import Audit, Bin, Count, CurrentComparison, Expectation, Variance, VarianceEntry
from binwatch.records.variances import VarianceState, VarianceStep
from monitor.photos import can_be_shown, was_replaced
from monitor.recent_photos import count_text
from monitor.views.discrepancies import expected_probability, is_flagged

MAX_HISTORY_ROWS = 50
"""Maximum number of photos, expected quantities, audits and variances listed, newest first."""


class ClassChance(BaseModel):
    """Probability of one class."""

    label: str
    """"0" to "5", or "more than 5"."""
    probability: float
    is_count: bool
    """Whether this class is the count."""
    is_expected: bool
    """Whether this is the class of the bin's expected quantity."""


class BinPhoto(BaseModel):
    """A photo of the bin and its count, or the reason why it was not counted."""

    id: int
    """Id of the count; the photo is at /photos/{id}."""
    key: str
    etag: str
    at: datetime
    """When the photo was stored."""
    recorded_at: datetime
    model: str
    precision: str
    provider: str
    predicted: int | None
    count: str | None
    """The count as text: "3", "more than 5", "about 17"; None if the photo was not counted."""
    between: tuple[int, int] | None
    """Range with 80 % of the probability, for counts above 5 of models that predict numbers above 5; otherwise None."""
    confidence: float | None
    reason: str | None
    """Why the photo was not counted."""
    detail: str | None
    width: int | None
    height: int | None
    replaced: bool
    """Whether another photo has been stored under the same key since."""
    can_be_shown: bool
    """Whether the photo could be decoded when it was counted and, according to the records, still exists."""
    is_latest: bool


class Item(BaseModel):
    """One article in the bin, according to the inventory."""

    sku: str
    name: str
    quantity: int | None
    """None if the inventory gives no quantity of this article."""
    size: str | None = None
    """Dimensions of the article; None if the inventory gives none."""


class Expected(BaseModel):
    """Expected quantity of the bin, or the reason why there is none."""

    id: int
    quantity: int | None
    items: list[Item] | None
    """Articles that make up the quantity; None if the source does not list them."""
    items_sum: int | None
    """Sum of the articles' quantities, which should equal `quantity`; None if a quantity is missing, or if the list of
    articles may be truncated."""
    source: str
    """Key of the metadata file, or name of the imported file."""
    at: datetime
    recorded_at: datetime
    reason: str | None
    detail: str | None
    is_latest: bool


class BinAudit(BaseModel):
    """An audit, with the count and the expected quantity that it checks."""

    id: int
    bucket: str
    bin_id: str
    answer: AuditAnswer
    quantity: int | None
    """None for answers without a number."""
    reason: AuditReason | None
    note: str | None
    blind: bool
    """Whether the auditor had seen neither the count nor the expected quantity."""
    auditor: str | None
    at: datetime
    photo_id: int | None
    """Id of the count that the audit checks; None if there was none."""
    predicted: int | None
    count: str | None
    expected: int | None
    of_count: Outcome | None
    """How the count compares with the answer; None if the answer does not tell."""
    of_inventory: Outcome | None
    """How the expected quantity compares with the answer; None if the answer does not tell."""
    of_latest_photo: bool
    """Whether the audit is of the bin's latest photo."""


class BinStep(BaseModel):
    """A step of a variance."""

    step: VarianceStep
    quantity: int | None
    """Number of items counted or approved, or newly expected by the inventory; None for a rejection."""
    person: str | None
    """None if a script entered a count without a name, or if the inventory was corrected."""
    note: str | None
    audit_id: int | None
    at: datetime


class BinVariance(BaseModel):
    """A difference between what people counted and what the inventory expected."""

    id: int
    state: VarianceState
    expected: int
    quantity: int | None
    """Approved quantity, or the one that most people counted; None if no two people counted the same."""
    opened_at: datetime
    closed_at: datetime | None
    trail: list[BinStep]
    """Steps of the variance, oldest first."""

    def was_counted_by(self, person: str | None) -> bool:
        """Return whether `person` has counted the bin, and so must not decide on the variance."""
        return any(entry.person == person for entry in self.trail)


class Standing(BaseModel):
    """Comparison of the latest photo with the latest expected quantity."""

    comparison_id: int
    difference: int
    """Count − expected quantity in items; a lower bound if the count is open-ended."""
    difference_in_words: str
    outcome: Outcome
    chance: float | None
    """Probability of the expected quantity according to the model."""
    p_value: float | None
    p_missing: float | None
    p_surplus: float | None
    direction: Suspicion
    """The suspicion that `flagged` refers to."""
    flagged: bool


class BinDetail(BaseModel):
    """Everything about one bin. Lists start with the newest entry and have at most MAX_HISTORY_ROWS entries."""

    bucket: str
    bin_id: str
    photo: BinPhoto | None
    """Latest photo; None if there is none yet."""
    probabilities: list[ClassChance]
    """Probabilities of the latest photo, in class order; empty if it was not counted."""
    expected: Expected | None
    """Latest expected quantity; None if there is none yet."""
    standing: Standing | None
    """None if there is nothing to compare."""
    alpha: float
    """Significance level for flagging."""
    audit: BinAudit | None
    """Last audit of the latest photo."""
    photos: list[BinPhoto]
    quantities: list[Expected]
    audits: list[BinAudit]
    variances: list[BinVariance]

    def was_answered_by(self, auditor: str | None) -> bool:
        """Return whether `auditor` has entered a number for the latest photo, and so may see the numbers."""
        no_count = self.photo is None or self.photo.predicted is None
        return any(
            audit.auditor == auditor
            and audit.quantity is not None
            and (audit.of_latest_photo or (no_count and audit.photo_id is None))
            for audit in self.audits
        )


def read_bin(
    connection: Connection, bucket: str, bin_id: str, alpha: float, direction: Suspicion = Suspicion.EITHER
) -> BinDetail:
    """Return one bin. Raises UnknownBin."""
    bin_id = normalise_bin_id(bin_id)
    select_bin = select(Bin.__table__).where(Bin.bucket == bucket, Bin.bin_id == bin_id)
    state = _read_one(connection, select_bin) if is_storable(bucket, bin_id) else None
    if state is None:
        raise UnknownBin(f"nothing is recorded of a bin {bin_id!r} in bucket {bucket!r}")
    latest = Count.__table__.alias("latest")
    counts = select(Count.__table__, was_replaced(latest).label("replaced")).outerjoin(
        latest, latest.c.id == state["count_id"]
    )
    photos = _read_newest(connection, counts, Count, bucket, bin_id, state["count_id"])
    expectations = select(Expectation.__table__)
    quantities = _read_newest(connection, expectations, Expectation, bucket, bin_id, state["expectation_id"])
    photo = next((row for row in photos if row["id"] == state["count_id"]), None)
    expected = next((row for row in quantities if row["id"] == state["expectation_id"]), None)
    audits = [_audit(row, photo) for row in _read_newest(connection, _SELECT_AUDITS, Audit, bucket, bin_id)]
    comparison = _read_one(
        connection,
        select(CurrentComparison.__table__).where(
            CurrentComparison.bucket == bucket, CurrentComparison.bin_id == bin_id
        ),
    )
    distribution = photo["distribution"] if photo else None
    return BinDetail(
        bucket=bucket,
        bin_id=bin_id,
        photo=_photo(photo, state) if photo else None,
        probabilities=_class_chances(photo, expected),
        expected=_expected(expected, state) if expected else None,
        standing=_standing(comparison, alpha, direction, distribution) if comparison else None,
        alpha=alpha,
        audit=next((audit for audit in audits if audit.of_latest_photo), None),
        photos=[_photo(row, state) for row in photos],
        quantities=[_expected(row, state) for row in quantities],
        audits=audits,
        variances=_read_variances(connection, bucket, bin_id),
    )


def _read_newest(
    connection: Connection,
    statement: Select[Any],
    table: type[Count | Expectation | Audit | Variance],
    bucket: str,
    bin_id: str,
    latest_id: int | None = None,
) -> Sequence[RowMapping]:
    """Return the last MAX_HISTORY_ROWS rows of a bin, and the row `latest_id` even if it is not one of them.

    Rows may be recorded out of order, so the latest photo or quantity need not have the highest id.
    """
    of_bin = statement.where(table.bucket == bucket, table.bin_id == bin_id)
    rows = connection.execute(of_bin.order_by(table.id.desc()).limit(MAX_HISTORY_ROWS)).mappings().all()
    if latest_id is None or any(row["id"] == latest_id for row in rows):
        return rows
    return [*connection.execute(statement.where(table.id == latest_id)).mappings(), *rows]


_SELECT_AUDITS = (
    select(
        Audit.__table__,
        Count.predicted,
        Count.distribution,
        Count.key,
        Count.etag,
        Expectation.quantity.label("expected"),
    )
    .select_from(Audit)
    .outerjoin(Count, Count.id == Audit.count_id)
    .outerjoin(Expectation, Expectation.id == Audit.expectation_id)
)


def _read_variances(connection: Connection, bucket: str, bin_id: str) -> list[BinVariance]:
    rows = _read_newest(connection, select(Variance.__table__), Variance, bucket, bin_id)
    trails: dict[int, list[RowMapping]] = {row["id"]: [] for row in rows}
    steps = select(VarianceEntry.__table__).where(VarianceEntry.variance_id.in_(trails)).order_by(VarianceEntry.id)
    for step in connection.execute(steps).mappings() if trails else []:
        trails[step["variance_id"]].append(step)
    return [BinVariance.model_validate(dict(row, trail=[dict(step) for step in trails[row["id"]]])) for row in rows]


def _read_one(connection: Connection, statement: Any) -> RowMapping | None:
    row: RowMapping | None = connection.execute(statement).mappings().one_or_none()
    return row


def _photo(row: RowMapping, state: RowMapping) -> BinPhoto:
    predicted, probabilities = row["predicted"], row["probabilities"]
    estimate = None if predicted is None else estimate_large_count(predicted, row["distribution"])
    return BinPhoto(
        id=row["id"],
        key=row["key"],
        etag=row["etag"],
        at=row["modified_at"],
        recorded_at=row["recorded_at"],
        model=row["model_version"],
        precision=row["precision"],
        provider=row["provider"],
        predicted=predicted,
        count=count_text(row),
        between=(estimate.low, estimate.high) if estimate else None,
        confidence=None if predicted is None or not probabilities else probabilities[predicted],
        reason=row["reason"],
        detail=row["detail"],
        width=row["width"],
        height=row["height"],
        replaced=row["replaced"],
        can_be_shown=can_be_shown(row["reason"], row["version_id"], replaced=row["replaced"]),
        is_latest=row["id"] == state["count_id"],
    )


def _class_chances(photo: RowMapping | None, expected: RowMapping | None) -> list[ClassChance]:
    if photo is None or not photo["probabilities"]:
        return []
    quantity = expected["quantity"] if expected else None
    expected_class = None if quantity is None else class_of(quantity)
    return [
        ClassChance(
            label=label,
            probability=probability,
            is_count=index == photo["predicted"],
            is_expected=index == expected_class,
        )
        for index, (label, probability) in enumerate(zip(CLASSES, photo["probabilities"], strict=False))
    ]


def _expected(row: RowMapping, state: RowMapping) -> Expected:
    items = None if row["contents"] is None else [Item.model_validate(item) for item in row["contents"]]
    quantities = [item.quantity for item in items or [] if item.quantity is not None]
    return Expected(
        id=row["id"],
        quantity=row["quantity"],
        items=items,
        items_sum=sum(quantities) if items and len(quantities) == len(items) < MAX_ARTICLES else None,
        source=row["source"],
        at=row["modified_at"],
        recorded_at=row["recorded_at"],
        reason=row["reason"],
        detail=row["detail"],
        is_latest=row["id"] == state["expectation_id"],
    )


def _standing(row: RowMapping, alpha: float, direction: Suspicion, distribution: list[float] | None) -> Standing:
    estimate = estimate_large_count(row["predicted"], distribution)
    return Standing(
        comparison_id=row["comparison_id"],
        difference=row["difference"],
        difference_in_words=describe_difference(row["predicted"], row["expected"], estimate),
        outcome=outcome_of_difference(row["difference"]),
        chance=expected_probability(row, distribution),
        p_value=row["p_value"],
        p_missing=row["p_missing"],
        p_surplus=row["p_surplus"],
        direction=direction,
        flagged=is_flagged(row, alpha, direction),
    )


def _audit(row: RowMapping, photo: RowMapping | None) -> BinAudit:
    answer = AuditAnswer(row["answer"])
    predicted, expected, quantity = row["predicted"], row["expected"], row["quantity"]
    return BinAudit(
        id=row["id"],
        bucket=row["bucket"],
        bin_id=row["bin_id"],
        answer=answer,
        quantity=quantity,
        reason=row["reason"],
        note=row["note"],
        blind=row["blind"],
        auditor=row["auditor"],
        at=row["audited_at"],
        photo_id=row["count_id"],
        predicted=predicted,
        count=count_text(row),
        expected=expected,
        of_count=verdict_on_count(answer, quantity, predicted),
        of_inventory=verdict_on_quantity(answer, quantity, expected),
        of_latest_photo=photo is not None and (row["key"], row["etag"]) == (photo["key"], photo["etag"]),
    )
