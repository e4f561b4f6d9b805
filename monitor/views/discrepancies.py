"""Bins whose photo does not look like the quantity that the inventory expects, the oddest first.

They are ranked by conformal p-value (binwatch.conformal), that of the direction which is asked for, and where a model
has no calibration by the probability of the expected quantity, after all that have a p-value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from unicodedata import normalize

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Connection, RowMapping, and_, exists, func, literal, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from binwatch.counts import (
    MORE_THAN_5,
    Outcome,
    Suspicion,
    describe_count,
    describe_difference,
    estimate_large_count,
    is_suspect,
    item_difference,
    outcome_of_difference,
)
from binwatch.keys import normalize_bin_id
from binwatch.records.audits import AuditAnswer, AuditReason, verdict_on_quantity
from binwatch.records.draws import first_audit_of
from binwatch.records.engine import is_storable
from binwatch.records.settlement import UNKNOWN_DOUBT, RankKind
from binwatch.records.tables import (
    Audit,
    Comparison,
    Count,
    CurrentComparison,
    Expectation,
    RankTotal,
    Variance,
    VarianceEntry,
    VarianceTotal,
)
from binwatch.records.variances import VarianceState
from monitor.records import MAX_ID
from monitor.views.paging import BadCursor, decode, encode, part_of

MAX_PREFIX = 1024
"""Characters of a prefix: S3's keys have no more bytes."""
MOST = 200
"""Bins on a page at most."""
_LAST = "\U0010ffff"
"""Sorts after every character that a key can go on with."""

Doubt = tuple[float, float, int]
"""Place in the ranking: doubt, chance and id of the comparison."""
PROVEN = 1_000
"""Audits that tell what flags have been worth: enough for a figure of now, and read in a moment."""
FEW = 20_000
"""Bins that are sorted in a moment: up to this number are filtered and then sorted, more are read along the ranking."""


class Direction(StrEnum):
    """Which bins: those that look wrong in one way or either (binwatch.counts.Suspicion), and the others."""

    EITHER = Suspicion.EITHER.value
    MISSING = Suspicion.MISSING.value
    SURPLUS = Suspicion.SURPLUS.value
    EXACT = "exact"
    """The count agrees."""
    ALL = "all"

    @property
    def suspicion(self) -> Suspicion:
        """The suspicion whose p-values rank and flag these bins."""
        return Suspicion(self) if self in (Direction.MISSING, Direction.SURPLUS) else Suspicion.EITHER


class Filters(BaseModel):
    """Which bins. All filters that are set must hold; without any, every bin whose count differs is listed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: AwareDatetime | None = Field(None, description="only photos that were stored at this time or later")
    until: AwareDatetime | None = Field(None, description="only photos that were stored before this time")
    prefix: str | None = Field(
        None,
        max_length=MAX_PREFIX,
        description="how the bin's id begins; with a slash in it, how the photo's key begins",
    )
    direction: Direction = Field(
        Direction.EITHER, description="items missing or surplus, either, count exact, or all; ranks and flags by it"
    )
    size: int = Field(0, ge=0, le=MORE_THAN_5, description="least difference in items")
    audited: bool | None = Field(None, description="true: somebody has looked at this photo; false: nobody has")
    answer: AuditAnswer | None = Field(None, description="what the last audit of this photo answered")
    model: str | None = Field(None, max_length=100, description="a model's version")
    variance: VarianceState | None = Field(
        None, description="state of a variance of the bin, of the quantity that is expected now"
    )
    recount_by: str | None = Field(
        None,
        max_length=100,
        description="bins to count again: with an open variance that this person has not counted",
    )
    flagged: bool = Field(False, description="only bins whose p-value is at most the level")


class AuditSaid(BaseModel):
    """What somebody found in the bin."""

    id: int
    answer: AuditAnswer
    quantity: int | None
    """None of answers without a number."""
    reason: AuditReason | None
    note: str | None
    blind: bool
    auditor: str | None
    audited_at: datetime
    of_inventory: Outcome | None
    """How the quantity that is expected now compares with what was found; None if the answer does not say."""


class Discrepancy(BaseModel):
    """One bin as it stands: its latest photo beside its latest expected quantity."""

    id: int
    """Of the comparison: another photo or expected quantity gives the bin another one."""
    bucket: str
    bin_id: str
    key: str
    photo_id: int
    """Of the count: the photo is at /photos/{photo_id}."""
    photo_at: datetime
    model: str
    predicted: int
    """Index of the class, 0 to 6."""
    count: str
    """In words: "3", "more than 5", "about 17"."""
    expected: int
    difference: int
    """Count − expected quantity in items; of an open-ended count at least so many."""
    difference_in_words: str
    outcome: Outcome
    chance: float | None
    """Probability that the model gives to the expected quantity (of more than 5, as a class, if it knows only that)."""
    p_value: float | None
    """How odd the photo is for a correctly recorded bin; None without calibration."""
    p_missing: float | None
    """The p-value for missing items alone: small if items seem to be missing."""
    p_surplus: float | None
    """The p-value for a surplus alone: small if there seem to be too many items."""
    flagged: bool
    """The count differs in the direction that was asked for, and the p-value of it is at most the level."""
    audit: AuditSaid | None
    """The last audit of this photo."""

    def p_value_of(self, suspicion: Suspicion) -> float | None:
        """P-value of one suspicion."""
        by_one_side = {Suspicion.MISSING: self.p_missing, Suspicion.SURPLUS: self.p_surplus}
        return by_one_side.get(suspicion, self.p_value)


class DiscrepancyPage(BaseModel):
    """Some bins in the order of the ranking, and how to get those beside them."""

    items: list[Discrepancy]
    next: str | None
    """Cursor for `after`; None on the last page."""
    previous: str | None
    """Cursor for `before`; None on the first page."""


class BinRef(BaseModel):
    """A bin that can be asked for."""

    bucket: str
    bin_id: str


class Neighbours(BaseModel):
    """The bins beside one in the ranking; None at its ends."""

    previous: BinRef | None
    next: BinRef | None


class Level(BaseModel):
    """What flagging promises: of correctly recorded bins, at most the share `alpha` is flagged, on average."""

    alpha: float
    direction: Suspicion
    """What bins are flagged for."""
    compared: int
    """Bins that have both a count and an expected quantity now."""
    calibrated: int
    """Those of them that have a p-value."""
    flagged: int
    """Bins whose count differs in this direction and whose p-value is at most `alpha`."""
    unaudited: int
    """Flagged bins that nobody has looked at since the photo was taken."""
    false_flags: float
    """`alpha` × `calibrated`: more flags than this are not to be expected if every bin is recorded correctly."""
    checked: int
    """Of the last PROVEN blind audits that found a number, those of bins that were flagged then."""
    inventory_wrong: int
    """Those of them that found another quantity than was expected: what flags have been worth so far."""


@dataclass(frozen=True, slots=True)
class FlaggedBins:
    """Bins that are flagged now, and those of them that nobody has looked at since the photo was taken."""

    flagged: int
    unaudited: int


@dataclass(frozen=True, slots=True)
class FlagReport:
    """What is flagged now at the level of the settings."""

    levels: list[Level]
    """For each suspicion."""
    slices: dict[int, FlaggedBins] = field(default_factory=dict)
    """By slice, for the suspicion of the settings; slices without a flagged bin are absent."""


def read_discrepancies(
    connection: Connection,
    filters: Filters,
    alpha: float,
    limit: int = 50,
    after: str | None = None,
    before: str | None = None,
) -> DiscrepancyPage:
    """At most `limit` bins after or before a cursor, in the order of the ranking. Raises BadCursor."""
    backwards = before is not None
    cursor = _place(before if backwards else after)
    rows = _rows(connection, filters, alpha, cursor, limit + 1, backwards=backwards)
    part = part_of(rows, limit, is_first=cursor is None, backwards=backwards)
    return DiscrepancyPage(
        items=[_discrepancy(row, alpha, filters.direction.suspicion) for row in part.rows],
        next=_cursor(part.rows[-1], filters.direction) if part.has_next else None,
        previous=_cursor(part.rows[0], filters.direction) if part.has_previous else None,
    )


def neighbours(connection: Connection, filters: Filters, alpha: float, bucket: str, bin_id: str) -> Neighbours:
    """The bins before and after one in the ranking of `filters`, whether it still passes them or not."""
    bin_id = normalize_bin_id(bin_id)
    where = (CurrentComparison.bucket == bucket, CurrentComparison.bin_id == bin_id)
    rank = _rank(filters.direction)
    place = connection.execute(select(*rank).where(*where)).one_or_none() if is_storable(bucket, bin_id) else None
    here: Doubt | None = None if place is None else (place[0], place[1], place[2])
    following = _rows(connection, filters, alpha, here, 1, backwards=False)
    before = _rows(connection, filters, alpha, here, 1, backwards=True) if here else []
    return Neighbours(previous=_ref(before), next=_ref(following))


def read_level(connection: Connection, alpha: float, direction: Suspicion = Suspicion.EITHER) -> Level:
    """How many bins the level flags now."""
    ranked = dict.fromkeys(RankKind, 0)
    for kind, number in connection.execute(select(RankTotal.kind, RankTotal.bins)):
        ranked[RankKind(kind)] = number
    flagged = _conditions(Filters(direction=Direction(direction), flagged=True), alpha)
    found = select(func.count(), func.count(CurrentComparison.audit_id)).where(*flagged)
    bins, audited = connection.execute(found).one()
    proven = _proven(connection, alpha, direction)
    return Level(
        alpha=alpha,
        direction=direction,
        compared=sum(ranked.values()),
        calibrated=ranked[RankKind.CALIBRATED],
        flagged=bins,
        unaudited=bins - audited,
        false_flags=alpha * ranked[RankKind.CALIBRATED],
        checked=len(proven),
        inventory_wrong=sum(proven),
    )


def waiting(filters: Filters, auditor: str | None = None) -> Filters:
    """The filters, limited to bins that wait for an audit by this person.

    Bins without an audit wait if their count differs, as `filters.direction` says. Bins whose last answer is no number
    wait whatever their count, and bins with an open variance wait for a person who has not counted them.
    """
    if filters.variance is VarianceState.OPEN:
        return filters.model_copy(update={"direction": Direction.ALL, "audited": None, "recount_by": auditor})
    if filters.answer is None:
        return filters.model_copy(update={"audited": False})
    return filters.model_copy(update={"direction": Direction.ALL})


def count_answers(connection: Connection, answers: Iterable[AuditAnswer]) -> dict[AuditAnswer, int]:
    """Bins by what the last audit of their photo answered."""
    wanted = list(answers)
    statement = (
        select(Audit.answer, func.count())
        .join(CurrentComparison, CurrentComparison.audit_id == Audit.id)
        .where(Audit.answer.in_([answer.value for answer in wanted]))
        .group_by(Audit.answer)
    )
    found = {AuditAnswer(answer): bins for answer, bins in connection.execute(statement)}
    return {answer: found.get(answer, 0) for answer in wanted}


def count_variances(connection: Connection) -> dict[VarianceState, int]:
    """Variances by state."""
    rows = connection.execute(select(VarianceTotal.state, VarianceTotal.variances))
    found = {row.state: row.variances for row in rows}
    return {state: found.get(state, 0) for state in VarianceState}


def read_flags(connection: Connection, alpha: float, direction: Suspicion, *, by_slice: bool) -> FlagReport:
    """How many bins the level flags now for each suspicion, and, for one of them, in each slice."""
    levels = [read_level(connection, alpha, suspicion) for suspicion in Suspicion]
    if not by_slice:
        return FlagReport(levels)
    conditions = _conditions(Filters(direction=Direction(direction), flagged=True), alpha)
    slice_id, audit_id = CurrentComparison.slice_id, CurrentComparison.audit_id
    found = select(slice_id, func.count(), func.count(audit_id)).where(*conditions, slice_id.is_not(None))
    rows = connection.execute(found.group_by(slice_id))
    return FlagReport(levels, {of: FlaggedBins(bins, bins - audited) for of, bins, audited in rows if of is not None})


def _proven(connection: Connection, alpha: float, direction: Suspicion) -> list[bool]:
    """Whether the inventory was wrong, for each flagged bin that was audited lately.

    By the ledger, since a bin whose quantity was corrected after the audit is not flagged any more.
    """
    counted = select(Audit.__table__).where(Audit.blind, Audit.answer == AuditAnswer.COUNT)
    lately = counted.order_by(Audit.id.desc()).limit(PROVEN).subquery()
    of_pair = and_(Comparison.count_id == lately.c.count_id, Comparison.expected == Expectation.quantity)
    p_value = {
        Suspicion.EITHER: Comparison.p_value,
        Suspicion.MISSING: Comparison.p_missing,
        Suspicion.SURPLUS: Comparison.p_surplus,
    }[direction]
    columns = (Comparison.count_id, Comparison.predicted, Comparison.expected, Count.distribution, lately.c.quantity)
    statement = (
        select(*columns)
        .select_from(lately)
        .join(Expectation, Expectation.id == lately.c.expectation_id)
        .join(Comparison, of_pair)
        .join(Count, Count.id == Comparison.count_id)
        .where(p_value <= alpha)
    )
    found = connection.execute(statement.order_by(lately.c.id)).mappings()
    last = {(row["count_id"], row["expected"]): row for row in found}.values()
    differences = [
        item_difference(row["predicted"], row["expected"], estimate_large_count(row["predicted"], row["distribution"]))
        for row in last
    ]
    return [
        row["expected"] != row["quantity"]
        for row, difference in zip(last, differences, strict=True)
        if is_suspect(difference, direction)
    ]


def _rank(
    direction: Direction,
) -> tuple[InstrumentedAttribute[float], InstrumentedAttribute[float], InstrumentedAttribute[int]]:
    """Columns of the ranking."""
    two_sided = direction.suspicion is Suspicion.EITHER
    doubt = CurrentComparison.doubt if two_sided else CurrentComparison.doubt_one_sided
    return doubt, CurrentComparison.chance, CurrentComparison.comparison_id


def _rows(
    connection: Connection, filters: Filters, alpha: float, place: Doubt | None, limit: int, *, backwards: bool
) -> Sequence[RowMapping]:
    if not is_storable(filters.prefix or "", filters.model or "", filters.recount_by or ""):
        return []
    statement = _ROW.where(*_conditions(filters, alpha))
    rank = tuple_(*_rank(filters.direction))
    if place is not None:
        here = tuple_(*(literal(part) for part in place))
        statement = statement.where(rank < here if backwards else rank > here)
    # An expression that no index is sorted by: PostgreSQL believes that filters are independent of each other, and
    # would walk down the whole ranking in search of yesterday's photos by a model that was replaced last week.
    columns = [column + 0 for column in rank.clauses] if _are_few(connection, filters) else list(rank.clauses)
    order = [column.desc() for column in columns] if backwards else columns
    return connection.execute(statement.order_by(*order).limit(limit)).mappings().all()


_ROW = (
    select(
        *CurrentComparison.__table__.c,
        Count.distribution,
        *(
            getattr(Audit, name).label(f"audit_{name}")
            for name in ("answer", "quantity", "reason", "note", "blind", "auditor", "audited_at")
        ),
    )
    .select_from(CurrentComparison)
    .join(Count, Count.id == CurrentComparison.count_id)
    .outerjoin(Audit, Audit.id == CurrentComparison.audit_id)
)


def _are_few(connection: Connection, filters: Filters) -> bool:
    """Whether one of several filters has an index and leaves at most FEW bins. A single filter is planned well."""
    others = (filters.model is not None, filters.size > 1, filters.direction is not Direction.EITHER, filters.flagged)
    ranges = [list(_within(filters))] if filters.since or filters.until else []
    ranges += [[_begins(filters.prefix)]] if filters.prefix else []
    ranges += [[_is_answered(filters.answer)]] if filters.answer else []
    ranges += [list(_of_variance(filters))] if filters.variance or filters.recount_by is not None else []
    ranges += [[CurrentComparison.audit_id.is_not(None)]] if filters.audited else []
    for conditions in ranges if len(ranges) + sum(others) > 1 else []:
        found = select(literal(1)).select_from(CurrentComparison).where(*conditions).limit(FEW + 1).subquery()
        if connection.execute(select(func.count()).select_from(found)).scalar_one() <= FEW:
            return True
    return False


def _within(filters: Filters) -> Iterator[ColumnElement[bool]]:
    if filters.since is not None:
        yield CurrentComparison.photo_at >= filters.since
    if filters.until is not None:
        yield CurrentComparison.photo_at < filters.until


def _conditions(filters: Filters, alpha: float) -> Iterator[ColumnElement[bool]]:
    yield from _within(filters)
    if filters.prefix:
        yield _begins(filters.prefix)
    if filters.audited is not None:
        yield CurrentComparison.audit_id.is_not(None) if filters.audited else CurrentComparison.audit_id.is_(None)
    if filters.answer is not None:
        yield _is_answered(filters.answer)
    yield from _of_variance(filters)
    if filters.model is not None:
        yield CurrentComparison.model_version == filters.model
    if filters.flagged:
        yield _rank(filters.direction)[0] <= alpha
    difference, least = CurrentComparison.difference, max(filters.size, 1)
    if filters.direction is Direction.EITHER or (filters.direction is Direction.ALL and filters.size):
        yield or_(difference <= -least, difference >= least) if least > 1 else difference != 0
    elif filters.direction is Direction.MISSING:
        yield difference <= -least
    elif filters.direction is Direction.SURPLUS:
        yield difference >= least
    elif filters.direction is Direction.EXACT:
        yield difference == 0


def _is_answered(answer: AuditAnswer) -> ColumnElement[bool]:
    return CurrentComparison.audit_id.in_(select(Audit.id).where(Audit.answer == answer.value))


def _of_variance(filters: Filters) -> Iterator[ColumnElement[bool]]:
    of_bin = (CurrentComparison.bucket, CurrentComparison.bin_id, CurrentComparison.expected)
    bins = select(Variance.bucket, Variance.bin_id, Variance.expected)
    if filters.variance is not None:
        yield tuple_(*of_bin).in_(bins.where(Variance.state == filters.variance.value))
    if filters.recount_by is not None:
        counted = (VarianceEntry.variance_id == Variance.id, VarianceEntry.person == filters.recount_by)
        is_open = Variance.state == VarianceState.OPEN.value
        yield tuple_(*of_bin).in_(bins.where(is_open, ~exists().where(*counted)))
        # A number of the same photo has shown this person the others: a recount would not be blind.
        numbers = (Audit.quantity.is_not(None), Audit.auditor == filters.recount_by)
        yield first_audit_of(CurrentComparison.count_id, *numbers).is_(None)


def _begins(prefix: str) -> ColumnElement[bool]:
    """By comparison, not by LIKE: an index serves it, and % and _ in a key mean themselves.

    A bin's id is in NFC; a key is as its uploader wrote it, which looks the same.
    """
    composed, decomposed = normalize("NFC", prefix), normalize("NFD", prefix)
    if "/" not in prefix:
        return _between(CurrentComparison.bin_id, composed)
    return or_(*(_between(CurrentComparison.key, form) for form in sorted({prefix, composed, decomposed})))


def _between(column: ColumnElement[str] | InstrumentedAttribute[str], prefix: str) -> ColumnElement[bool]:
    return and_(column >= prefix, column < prefix + _LAST)


def _discrepancy(row: RowMapping, alpha: float, direction: Suspicion) -> Discrepancy:
    said = None
    if row["audit_id"] is not None:
        answer, quantity = AuditAnswer(row["audit_answer"]), row["audit_quantity"]
        said = AuditSaid(
            id=row["audit_id"],
            answer=answer,
            quantity=quantity,
            reason=row["audit_reason"],
            note=row["audit_note"],
            blind=row["audit_blind"],
            auditor=row["audit_auditor"],
            audited_at=row["audit_audited_at"],
            of_inventory=verdict_on_quantity(answer, quantity, row["expected"]),
        )
    finer = estimate_large_count(row["predicted"], row["distribution"])
    return Discrepancy(
        id=row["comparison_id"],
        bucket=row["bucket"],
        bin_id=row["bin_id"],
        key=row["key"],
        photo_id=row["count_id"],
        photo_at=row["photo_at"],
        model=row["model_version"],
        predicted=row["predicted"],
        count=describe_count(row["predicted"], finer),
        expected=row["expected"],
        difference=row["difference"],
        difference_in_words=describe_difference(row["predicted"], row["expected"], finer),
        outcome=outcome_of_difference(row["difference"]),
        chance=chance_of(row, row["distribution"]),
        p_value=row["p_value"],
        p_missing=row["p_missing"],
        p_surplus=row["p_surplus"],
        flagged=is_flagged(row, alpha, direction),
        audit=said,
    )


def chance_of(row: RowMapping, distribution: Sequence[float] | None) -> float | None:
    """Probability of the expected quantity of a row of `current_comparisons`, as fine as the model tells numbers apart.

    None if the calibration has no category of the quantity.
    """
    if row["doubt"] >= UNKNOWN_DOUBT:
        return None
    if distribution is None:
        return float(row["chance"])
    return float(distribution[min(row["expected"], len(distribution) - 1)])


def is_flagged(row: RowMapping, alpha: float, direction: Suspicion) -> bool:
    """Whether a row of `current_comparisons` is flagged for this suspicion."""
    doubt = row["doubt" if direction is Suspicion.EITHER else "doubt_one_sided"]
    return is_suspect(row["difference"], direction) and bool(doubt <= alpha)


def _ref(rows: Sequence[RowMapping]) -> BinRef | None:
    return BinRef(bucket=rows[0]["bucket"], bin_id=rows[0]["bin_id"]) if rows else None


def _cursor(row: RowMapping, direction: Direction) -> str:
    return encode(" ".join(repr(row[column.key]) for column in _rank(direction)))


def _place(cursor: str | None) -> Doubt | None:
    if cursor is None:
        return None
    try:
        doubt, chance, number = decode(cursor).encode("ascii").split(b" ")  # float takes other scripts' digits, too
        place = (float(doubt), float(chance), int(number))
    except ValueError as error:
        raise BadCursor(cursor) from error
    if not (0 <= place[0] <= UNKNOWN_DOUBT and 0 <= place[1] <= 1 and 0 < place[2] <= MAX_ID):
        raise BadCursor(cursor)
    return place
