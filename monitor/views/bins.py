"""One bin: its latest photo, what the model says of it, what the inventory expects, and everything before."""

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
from binwatch.keys import normalize_bin_id
from binwatch.metadata import MAX_ARTICLES
from binwatch.records.audits import AuditAnswer, AuditReason, UnknownBin, verdict_on_count, verdict_on_quantity
from binwatch.records.engine import is_storable
from binwatch.records.tables import Audit, Bin, Count, CurrentComparison, Expectation, Variance, VarianceEntry
from binwatch.records.variances import VarianceState, VarianceStep
from monitor.photos import can_be_shown, was_replaced
from monitor.recent_photos import count_text
from monitor.views.discrepancies import chance_of, is_flagged

HISTORY = 50
"""Photos, expected quantities and audits that are listed at most, the newest first."""


class ClassChance(BaseModel):
    """What the model gives to one class."""

    label: str
    """"0" to "5", or "more than 5"."""
    probability: float
    is_count: bool
    """The class that is the count."""
    is_expected: bool
    """The class of the bin's expected quantity."""


class BinPhoto(BaseModel):
    """A photo of the bin as one model counted it, or why it could not."""

    id: int
    """Of the count: the photo is at /photos/{id}."""
    key: str
    etag: str
    at: datetime
    """When it was stored."""
    recorded_at: datetime
    model: str
    precision: str
    provider: str
    predicted: int | None
    count: str | None
    """In words: "3", "more than 5", "about 17"; None if it was not counted."""
    between: tuple[int, int] | None
    """Of a count beyond 5 by a model that tells such numbers apart: the range that holds 80 % of its probability."""
    confidence: float | None
    reason: str | None
    """Why it was not counted."""
    detail: str | None
    width: int | None
    height: int | None
    replaced: bool
    """Another photo has been stored under its key since."""
    can_be_shown: bool
    """The photo was sound when it was counted, and is still there, as far as the records know."""
    is_latest: bool


class Item(BaseModel):
    """One kind of article in the bin, as the inventory says."""

    sku: str
    name: str
    quantity: int | None
    """None if the inventory gives no number of this article."""
    size: str | None = None
    """Its sides; None if the inventory does not say."""


class Expected(BaseModel):
    """What the inventory says of the bin, or why it says nothing."""

    id: int
    quantity: int | None
    items: list[Item] | None
    """None if the source does not say what the quantity is made up of."""
    items_sum: int | None
    """What the articles add up to; None if one has no number, or not all are kept. Else it should be the quantity."""
    source: str
    """Key of the metadata file, or name of the imported file."""
    at: datetime
    recorded_at: datetime
    reason: str | None
    detail: str | None
    is_latest: bool


class BinAudit(BaseModel):
    """What somebody found in the bin, beside what it judged."""

    id: int
    bucket: str
    bin_id: str
    answer: AuditAnswer
    quantity: int | None
    """None of answers without a number."""
    reason: AuditReason | None
    note: str | None
    blind: bool
    """The auditor had seen neither count nor expected quantity."""
    auditor: str | None
    at: datetime
    photo_id: int | None
    """Of the count that it judges; None if there was none."""
    predicted: int | None
    count: str | None
    expected: int | None
    of_count: Outcome | None
    """How the count compares with the answer; None if that does not say."""
    of_inventory: Outcome | None
    """How the expected quantity compares with the answer; None if that does not say."""
    of_latest_photo: bool
    """It is about the photo that is the bin's latest."""


class BinStep(BaseModel):
    """A step of a variance."""

    step: VarianceStep
    quantity: int | None
    """Items that were counted or approved, or that the inventory expects by now; None of a rejection."""
    person: str | None
    """None if a script entered a count without a name, and where the inventory was corrected."""
    note: str | None
    audit_id: int | None
    at: datetime


class BinVariance(BaseModel):
    """A difference between what people counted and what the inventory expected."""

    id: int
    state: VarianceState
    expected: int
    quantity: int | None
    """Items that most people found, or that were approved; None if no two found the same."""
    opened_at: datetime
    closed_at: datetime | None
    trail: list[BinStep]
    """What happened to it, in this order."""

    def was_counted_by(self, person: str | None) -> bool:
        """Whether this person has counted, and so does not decide on it."""
        return any(entry.person == person for entry in self.trail)


class Standing(BaseModel):
    """How the latest photo and the latest expected quantity compare."""

    comparison_id: int
    difference: int
    """Count − expected quantity in items; of an open-ended count at least so many."""
    difference_in_words: str
    outcome: Outcome
    chance: float | None
    """Probability that the model gives to the expected quantity."""
    p_value: float | None
    p_missing: float | None
    p_surplus: float | None
    direction: Suspicion
    """What it may be flagged for."""
    flagged: bool


class BinDetail(BaseModel):
    """Everything about one bin. Lists begin with the newest and end after HISTORY."""

    bucket: str
    bin_id: str
    photo: BinPhoto | None
    """The latest; None if there is none yet."""
    probabilities: list[ClassChance]
    """Of the latest photo, in the order of the classes; empty if it was not counted."""
    expected: Expected | None
    """The latest; None if there is none yet."""
    standing: Standing | None
    """None while there is nothing to compare."""
    alpha: float
    """The level that bins are flagged at."""
    audit: BinAudit | None
    """The last audit of the latest photo."""
    photos: list[BinPhoto]
    quantities: list[Expected]
    audits: list[BinAudit]
    variances: list[BinVariance]

    def was_answered_by(self, auditor: str | None) -> bool:
        """Whether this person has entered a number of what the bin shows now, and so may see the others."""
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
    """One bin. Raises UnknownBin."""
    bin_id = normalize_bin_id(bin_id)
    wanted = select(Bin.__table__).where(Bin.bucket == bucket, Bin.bin_id == bin_id)
    state = _one(connection, wanted) if is_storable(bucket, bin_id) else None
    if state is None:
        raise UnknownBin(f"nothing is recorded of a bin {bin_id!r} in bucket {bucket!r}")
    latest = Count.__table__.alias("latest")
    counts = select(Count.__table__, was_replaced(latest).label("replaced")).outerjoin(
        latest, latest.c.id == state["count_id"]
    )
    photos = _newest(connection, counts, Count, bucket, bin_id, state["count_id"])
    expectations = select(Expectation.__table__)
    quantities = _newest(connection, expectations, Expectation, bucket, bin_id, state["expectation_id"])
    photo = next((row for row in photos if row["id"] == state["count_id"]), None)
    expected = next((row for row in quantities if row["id"] == state["expectation_id"]), None)
    audits = [_audit(row, photo) for row in _newest(connection, _AUDIT, Audit, bucket, bin_id)]
    current = _one(
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
        probabilities=_chances(photo, expected),
        expected=_expected(expected, state) if expected else None,
        standing=_standing(current, alpha, direction, distribution) if current else None,
        alpha=alpha,
        audit=next((audit for audit in audits if audit.of_latest_photo), None),
        photos=[_photo(row, state) for row in photos],
        quantities=[_expected(row, state) for row in quantities],
        audits=audits,
        variances=_variances(connection, bucket, bin_id),
    )


def _newest(
    connection: Connection,
    statement: Select[Any],
    table: type[Count | Expectation | Audit | Variance],
    bucket: str,
    bin_id: str,
    latest: int | None = None,
) -> Sequence[RowMapping]:
    """The newest rows of a bin, and the one with the id `latest` even if many were recorded after it."""
    newest = statement.where(table.bucket == bucket, table.bin_id == bin_id).order_by(table.id.desc()).limit(HISTORY)
    rows = connection.execute(newest).mappings().all()
    if latest is None or any(row["id"] == latest for row in rows):
        return rows
    return [*connection.execute(statement.where(table.id == latest)).mappings(), *rows]


_AUDIT = (
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


def _variances(connection: Connection, bucket: str, bin_id: str) -> list[BinVariance]:
    rows = _newest(connection, select(Variance.__table__), Variance, bucket, bin_id)
    trails: dict[int, list[RowMapping]] = {row["id"]: [] for row in rows}
    steps = select(VarianceEntry.__table__).where(VarianceEntry.variance_id.in_(trails)).order_by(VarianceEntry.id)
    for step in connection.execute(steps).mappings() if trails else []:
        trails[step["variance_id"]].append(step)
    return [BinVariance.model_validate(dict(row, trail=[dict(step) for step in trails[row["id"]]])) for row in rows]


def _one(connection: Connection, statement: Any) -> RowMapping | None:
    found: RowMapping | None = connection.execute(statement).mappings().one_or_none()
    return found


def _photo(row: RowMapping, state: RowMapping) -> BinPhoto:
    predicted, probabilities = row["predicted"], row["probabilities"]
    finer = None if predicted is None else estimate_large_count(predicted, row["distribution"])
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
        between=(finer.low, finer.high) if finer else None,
        confidence=None if predicted is None or not probabilities else probabilities[predicted],
        reason=row["reason"],
        detail=row["detail"],
        width=row["width"],
        height=row["height"],
        replaced=row["replaced"],
        can_be_shown=can_be_shown(row["reason"], row["version_id"], replaced=row["replaced"]),
        is_latest=row["id"] == state["count_id"],
    )


def _chances(photo: RowMapping | None, expected: RowMapping | None) -> list[ClassChance]:
    if photo is None or not photo["probabilities"]:
        return []
    quantity = expected["quantity"] if expected else None
    right = None if quantity is None else class_of(quantity)
    return [
        ClassChance(label=label, probability=chance, is_count=index == photo["predicted"], is_expected=index == right)
        for index, (label, chance) in enumerate(zip(CLASSES, photo["probabilities"], strict=False))
    ]


def _expected(row: RowMapping, state: RowMapping) -> Expected:
    items = None if row["contents"] is None else [Item.model_validate(item) for item in row["contents"]]
    known = [item.quantity for item in items or [] if item.quantity is not None]
    return Expected(
        id=row["id"],
        quantity=row["quantity"],
        items=items,
        items_sum=sum(known) if items and len(known) == len(items) < MAX_ARTICLES else None,
        source=row["source"],
        at=row["modified_at"],
        recorded_at=row["recorded_at"],
        reason=row["reason"],
        detail=row["detail"],
        is_latest=row["id"] == state["expectation_id"],
    )


def _standing(row: RowMapping, alpha: float, direction: Suspicion, distribution: list[float] | None) -> Standing:
    finer = estimate_large_count(row["predicted"], distribution)
    return Standing(
        comparison_id=row["comparison_id"],
        difference=row["difference"],
        difference_in_words=describe_difference(row["predicted"], row["expected"], finer),
        outcome=outcome_of_difference(row["difference"]),
        chance=chance_of(row, distribution),
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
