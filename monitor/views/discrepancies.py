"""Bins whose photo does not match the quantity that the inventory expects, most suspicious first.

Bins are ranked by their conformal p-value (binwatch.conformal) for the requested direction. Bins counted by a model
without calibration follow, ranked by the probability of the expected quantity.
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
from binwatch.keys import normalise_bin_id
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
from monitor.views.paging import BadCursor, decode, encode, make_page

MAX_PREFIX_LENGTH = 1024
"""Maximum length of a prefix in characters: a key in S3 has at most 1024 bytes."""
MAX_PAGE_SIZE = 200
"""Maximum number of rows on a page of an API response."""
MAX_RECENT_AUDITS = 1_000
"""Maximum number of blind audits, the latest, that show how often flags are right: quick to read, and current."""
MAX_SORTED_BINS = 20_000
"""Maximum number of bins that are filtered first and then sorted. More are read in ranking order and then filtered."""
_HIGHEST_CHARACTER = "\U0010ffff"
"""Sorts after every other character that may occur in a key."""

RankKey = tuple[float, float, int]
"""Position in the ranking: doubt, chance and id of the comparison."""


class Direction(StrEnum):
    """Sign of the difference between count and expected quantity, as a filter; see also binwatch.counts.Suspicion."""

    EITHER = Suspicion.EITHER.value
    MISSING = Suspicion.MISSING.value
    SURPLUS = Suspicion.SURPLUS.value
    EXACT = "exact"
    """The count equals the expected quantity."""
    ALL = "all"

    @property
    def suspicion(self) -> Suspicion:
        """Suspicion whose p-values rank and flag these bins."""
        return Suspicion(self) if self in (Direction.MISSING, Direction.SURPLUS) else Suspicion.EITHER


class Filters(BaseModel):
    """Filters of the list of bins, combined with AND. Without any, every bin whose count differs is listed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: AwareDatetime | None = Field(None, description="only photos stored at or after this time")
    until: AwareDatetime | None = Field(None, description="only photos stored before this time")
    prefix: str | None = Field(
        None,
        max_length=MAX_PREFIX_LENGTH,
        description="prefix of the bin's id or, if it contains a slash, of the photo's key",
    )
    direction: Direction = Field(
        Direction.EITHER,
        description="direction of the difference: missing, surplus, either, exact or all; also selects the p-values"
        " for ranking and flagging",
    )
    size: int = Field(0, ge=0, le=MORE_THAN_5, description="minimum difference in items")
    audited: bool | None = Field(None, description="whether the latest photo has been audited")
    answer: AuditAnswer | None = Field(None, description="answer of the last audit of the latest photo")
    model: str | None = Field(None, max_length=100, description="version of the model")
    variance: VarianceState | None = Field(
        None, description="state of the bin's variance from the current expected quantity"
    )
    recount_by: str | None = Field(
        None,
        max_length=100,
        description="only bins with an open variance that this person has not counted yet",
    )
    flagged: bool = Field(False, description="only bins whose p-value is at most the level")


class LastAudit(BaseModel):
    """The last audit of the bin's latest photo."""

    id: int
    answer: AuditAnswer
    quantity: int | None
    """None for answers without a number."""
    reason: AuditReason | None
    note: str | None
    blind: bool
    auditor: str | None
    audited_at: datetime
    of_inventory: Outcome | None
    """How the current expected quantity compares with the answer; None if the answer does not tell."""


class Discrepancy(BaseModel):
    """One bin: its latest photo compared with its latest expected quantity."""

    id: int
    """Id of the comparison; a new photo or a new expected quantity makes a new comparison."""
    bucket: str
    bin_id: str
    key: str
    photo_id: int
    """Id of the count; the photo is at /photos/{photo_id}."""
    photo_at: datetime
    model: str
    predicted: int
    """Index of the class, 0 to 6."""
    count: str
    """The count as text: "3", "more than 5", "about 17"."""
    expected: int
    difference: int
    """Count − expected quantity in items; a lower bound if the count is open-ended."""
    difference_in_words: str
    outcome: Outcome
    chance: float | None
    """Probability of the expected quantity according to the model. Quantities above 5 share the probability of "more
    than 5" if the model only has the seven classes."""
    p_value: float | None
    """Small if the photo is unusual for a correctly recorded bin; None without calibration."""
    p_missing: float | None
    """One-sided p-value; small if items seem to be missing."""
    p_surplus: float | None
    """One-sided p-value; small if there seem to be too many items."""
    flagged: bool
    """Whether the count differs in the requested direction, with a p-value of at most the level."""
    audit: LastAudit | None
    """The last audit of this photo."""

    def p_value_of(self, suspicion: Suspicion) -> float | None:
        """Return the p-value for one suspicion."""
        one_sided = {Suspicion.MISSING: self.p_missing, Suspicion.SURPLUS: self.p_surplus}
        return one_sided.get(suspicion, self.p_value)


class DiscrepancyPage(BaseModel):
    """One page of the ranking, with cursors to the pages before and after it."""

    items: list[Discrepancy]
    next: str | None
    """Cursor for `after`; None on the last page."""
    previous: str | None
    """Cursor for `before`; None on the first page."""


class BinRef(BaseModel):
    """Key of a bin."""

    bucket: str
    bin_id: str


class Neighbours(BaseModel):
    """The bins before and after a bin in the ranking; None at the ends of the ranking."""

    previous: BinRef | None
    next: BinRef | None


class Level(BaseModel):
    """Flags at one level: on average, at most the share `alpha` of correctly recorded bins is flagged."""

    alpha: float
    direction: Suspicion
    """The suspicion that bins are flagged for."""
    compared: int
    """Bins with both a count and an expected quantity."""
    calibrated: int
    """Compared bins with a p-value."""
    flagged: int
    """Bins whose count differs in this direction, with a p-value of at most `alpha`."""
    unaudited: int
    """Flagged bins whose latest photo nobody has audited."""
    false_flags: float
    """`alpha` × `calibrated`: upper bound of the expected number of flags if every bin is recorded correctly."""
    checked: int
    """Bins that were flagged when they were audited, among the latest MAX_RECENT_AUDITS blind audits with a number."""
    inventory_wrong: int
    """Checked bins whose audit found another quantity than expected: how often flags have been right so far."""


@dataclass(frozen=True, slots=True)
class FlaggedBins:
    """Number of flagged bins, and of those whose latest photo nobody has audited."""

    flagged: int
    unaudited: int


@dataclass(frozen=True, slots=True)
class FlagReport:
    """Current flags at the level of the settings."""

    levels: list[Level]
    """One level per suspicion."""
    slices: dict[int, FlaggedBins] = field(default_factory=dict)
    """Slice id → flagged bins, for the suspicion of the settings; slices without a flagged bin are absent."""


def read_discrepancies(
    connection: Connection,
    filters: Filters,
    alpha: float,
    limit: int = 50,
    after: str | None = None,
    before: str | None = None,
) -> DiscrepancyPage:
    """Return at most `limit` bins after or before a cursor, in ranking order. Raises BadCursor."""
    backwards = before is not None
    cursor = _decode_cursor(before if backwards else after)
    rows = _read_rows(connection, filters, alpha, cursor, limit + 1, backwards=backwards)
    page = make_page(rows, limit, is_first=cursor is None, backwards=backwards)
    return DiscrepancyPage(
        items=[_discrepancy(row, alpha, filters.direction.suspicion) for row in page.rows],
        next=_encode_cursor(page.rows[-1], filters.direction) if page.has_next else None,
        previous=_encode_cursor(page.rows[0], filters.direction) if page.has_previous else None,
    )


def read_neighbours(connection: Connection, filters: Filters, alpha: float, bucket: str, bin_id: str) -> Neighbours:
    """Return the bins before and after a bin in the filtered ranking; the bin itself need not pass the filters."""
    bin_id = normalise_bin_id(bin_id)
    where = (CurrentComparison.bucket == bucket, CurrentComparison.bin_id == bin_id)
    rank = _rank_columns(filters.direction)
    row = connection.execute(select(*rank).where(*where)).one_or_none() if is_storable(bucket, bin_id) else None
    position: RankKey | None = None if row is None else (row[0], row[1], row[2])
    following = _read_rows(connection, filters, alpha, position, 1, backwards=False)
    preceding = _read_rows(connection, filters, alpha, position, 1, backwards=True) if position else []
    return Neighbours(previous=_first_ref(preceding), next=_first_ref(following))


def read_level(connection: Connection, alpha: float, direction: Suspicion = Suspicion.EITHER) -> Level:
    """Return how many bins are flagged at the level `alpha`, and how often flags were right."""
    bins_by_kind = dict.fromkeys(RankKind, 0)
    for kind, bins in connection.execute(select(RankTotal.kind, RankTotal.bins)):
        bins_by_kind[RankKind(kind)] = bins
    is_flagged = _conditions(Filters(direction=Direction(direction), flagged=True), alpha)
    count_flagged = select(func.count(), func.count(CurrentComparison.audit_id)).where(*is_flagged)
    flagged, audited = connection.execute(count_flagged).one()
    errors = _read_inventory_errors(connection, alpha, direction)
    return Level(
        alpha=alpha,
        direction=direction,
        compared=sum(bins_by_kind.values()),
        calibrated=bins_by_kind[RankKind.CALIBRATED],
        flagged=flagged,
        unaudited=flagged - audited,
        false_flags=alpha * bins_by_kind[RankKind.CALIBRATED],
        checked=len(errors),
        inventory_wrong=sum(errors),
    )


def waiting_for_audit(filters: Filters, auditor: str | None = None) -> Filters:
    """Return the filters restricted to bins that wait for an audit by `auditor`.

    A bin without an audit waits if its count differs in `filters.direction`. A bin whose last answer has no number
    waits whatever its count. A bin with an open variance waits for everybody who has not counted it yet.
    """
    if filters.variance is VarianceState.OPEN:
        return filters.model_copy(update={"direction": Direction.ALL, "audited": None, "recount_by": auditor})
    if filters.answer is None:
        return filters.model_copy(update={"audited": False})
    return filters.model_copy(update={"direction": Direction.ALL})


def count_answers(connection: Connection, answers: Iterable[AuditAnswer]) -> dict[AuditAnswer, int]:
    """Return the number of bins by the answer of the last audit of their photo."""
    answers = list(answers)
    statement = (
        select(Audit.answer, func.count())
        .join(CurrentComparison, CurrentComparison.audit_id == Audit.id)
        .where(Audit.answer.in_([answer.value for answer in answers]))
        .group_by(Audit.answer)
    )
    bins_by_answer = {AuditAnswer(answer): bins for answer, bins in connection.execute(statement)}
    return {answer: bins_by_answer.get(answer, 0) for answer in answers}


def count_variances(connection: Connection) -> dict[VarianceState, int]:
    """Return the number of variances by state."""
    rows = connection.execute(select(VarianceTotal.state, VarianceTotal.variances))
    variances_by_state = {row.state: row.variances for row in rows}
    return {state: variances_by_state.get(state, 0) for state in VarianceState}


def read_flags(connection: Connection, alpha: float, direction: Suspicion, *, by_slice: bool) -> FlagReport:
    """Return the current flags for each suspicion and, if `by_slice`, those for `direction` in each slice."""
    levels = [read_level(connection, alpha, suspicion) for suspicion in Suspicion]
    if not by_slice:
        return FlagReport(levels)
    conditions = _conditions(Filters(direction=Direction(direction), flagged=True), alpha)
    slice_id, audit_id = CurrentComparison.slice_id, CurrentComparison.audit_id
    statement = select(slice_id, func.count(), func.count(audit_id)).where(*conditions, slice_id.is_not(None))
    rows = connection.execute(statement.group_by(slice_id))
    slices = {slice_: FlaggedBins(bins, bins - audited) for slice_, bins, audited in rows if slice_ is not None}
    return FlagReport(levels, slices)


def _read_inventory_errors(connection: Connection, alpha: float, direction: Suspicion) -> list[bool]:
    """Return whether the inventory was wrong, for each of the latest audits of a bin that was flagged at the time.

    Reads the ledger of comparisons: a bin whose quantity was corrected after the audit is no longer flagged.
    """
    counted = select(Audit.__table__).where(Audit.blind, Audit.answer == AuditAnswer.COUNT)
    recent = counted.order_by(Audit.id.desc()).limit(MAX_RECENT_AUDITS).subquery()
    of_pair = and_(Comparison.count_id == recent.c.count_id, Comparison.expected == Expectation.quantity)
    p_value = {
        Suspicion.EITHER: Comparison.p_value,
        Suspicion.MISSING: Comparison.p_missing,
        Suspicion.SURPLUS: Comparison.p_surplus,
    }[direction]
    columns = (Comparison.count_id, Comparison.predicted, Comparison.expected, Count.distribution, recent.c.quantity)
    statement = (
        select(*columns)
        .select_from(recent)
        .join(Expectation, Expectation.id == recent.c.expectation_id)
        .join(Comparison, of_pair)
        .join(Count, Count.id == Comparison.count_id)
        .where(p_value <= alpha)
    )
    rows = connection.execute(statement.order_by(recent.c.id)).mappings()
    last_audits = {(row["count_id"], row["expected"]): row for row in rows}.values()
    differences = [
        item_difference(row["predicted"], row["expected"], estimate_large_count(row["predicted"], row["distribution"]))
        for row in last_audits
    ]
    return [
        row["expected"] != row["quantity"]
        for row, difference in zip(last_audits, differences, strict=True)
        if is_suspect(difference, direction)
    ]


def _rank_columns(
    direction: Direction,
) -> tuple[InstrumentedAttribute[float], InstrumentedAttribute[float], InstrumentedAttribute[int]]:
    two_sided = direction.suspicion is Suspicion.EITHER
    doubt = CurrentComparison.doubt if two_sided else CurrentComparison.doubt_one_sided
    return doubt, CurrentComparison.chance, CurrentComparison.comparison_id


def _read_rows(
    connection: Connection, filters: Filters, alpha: float, position: RankKey | None, limit: int, *, backwards: bool
) -> Sequence[RowMapping]:
    if not is_storable(filters.prefix or "", filters.model or "", filters.recount_by or ""):
        return []
    statement = _SELECT_BINS.where(*_conditions(filters, alpha))
    rank = tuple_(*_rank_columns(filters.direction))
    if position is not None:
        start = tuple_(*(literal(value) for value in position))
        statement = statement.where(rank < start if backwards else rank > start)
    # `+ 0` keeps PostgreSQL from using the index of the ranking. Its planner assumes that filters are independent of
    # each other, and would scan the whole ranking for yesterday's photos by a model that was replaced last week.
    few = _has_selective_filter(connection, filters)
    columns = [column + 0 for column in rank.clauses] if few else list(rank.clauses)
    order = [column.desc() for column in columns] if backwards else columns
    return connection.execute(statement.order_by(*order).limit(limit)).mappings().all()


_SELECT_BINS = (
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


def _has_selective_filter(connection: Connection, filters: Filters) -> bool:
    """Return whether one of several filters has an index and leaves at most MAX_SORTED_BINS bins.

    A single filter needs no check: the database plans it well.
    """
    unindexed = (
        filters.model is not None,
        filters.size > 1,
        filters.direction is not Direction.EITHER,
        filters.flagged,
    )
    indexed = [list(_photo_time_conditions(filters))] if filters.since or filters.until else []
    indexed += [[_has_prefix(filters.prefix)]] if filters.prefix else []
    indexed += [[_has_answer(filters.answer)]] if filters.answer else []
    indexed += [list(_variance_conditions(filters))] if filters.variance or filters.recount_by is not None else []
    indexed += [[CurrentComparison.audit_id.is_not(None)]] if filters.audited else []
    for conditions in indexed if len(indexed) + sum(unindexed) > 1 else []:
        matches = select(literal(1)).select_from(CurrentComparison).where(*conditions).limit(MAX_SORTED_BINS + 1)
        if connection.execute(select(func.count()).select_from(matches.subquery())).scalar_one() <= MAX_SORTED_BINS:
            return True
    return False


def _photo_time_conditions(filters: Filters) -> Iterator[ColumnElement[bool]]:
    if filters.since is not None:
        yield CurrentComparison.photo_at >= filters.since
    if filters.until is not None:
        yield CurrentComparison.photo_at < filters.until


def _conditions(filters: Filters, alpha: float) -> Iterator[ColumnElement[bool]]:
    yield from _photo_time_conditions(filters)
    if filters.prefix:
        yield _has_prefix(filters.prefix)
    if filters.audited is not None:
        yield CurrentComparison.audit_id.is_not(None) if filters.audited else CurrentComparison.audit_id.is_(None)
    if filters.answer is not None:
        yield _has_answer(filters.answer)
    yield from _variance_conditions(filters)
    if filters.model is not None:
        yield CurrentComparison.model_version == filters.model
    if filters.flagged:
        yield _rank_columns(filters.direction)[0] <= alpha
    difference, min_size = CurrentComparison.difference, max(filters.size, 1)
    if filters.direction is Direction.EITHER or (filters.direction is Direction.ALL and filters.size):
        yield or_(difference <= -min_size, difference >= min_size) if min_size > 1 else difference != 0
    elif filters.direction is Direction.MISSING:
        yield difference <= -min_size
    elif filters.direction is Direction.SURPLUS:
        yield difference >= min_size
    elif filters.direction is Direction.EXACT:
        yield difference == 0


def _has_answer(answer: AuditAnswer) -> ColumnElement[bool]:
    return CurrentComparison.audit_id.in_(select(Audit.id).where(Audit.answer == answer.value))


def _variance_conditions(filters: Filters) -> Iterator[ColumnElement[bool]]:
    bin_columns = tuple_(CurrentComparison.bucket, CurrentComparison.bin_id, CurrentComparison.expected)
    variances = select(Variance.bucket, Variance.bin_id, Variance.expected)
    if filters.variance is not None:
        yield bin_columns.in_(variances.where(Variance.state == filters.variance.value))
    if filters.recount_by is not None:
        counted = (VarianceEntry.variance_id == Variance.id, VarianceEntry.person == filters.recount_by)
        is_open = Variance.state == VarianceState.OPEN.value
        yield bin_columns.in_(variances.where(is_open, ~exists().where(*counted)))
        # A person who entered a number for this photo was then shown the count and the expected quantity: not blind.
        numbers = (Audit.quantity.is_not(None), Audit.auditor == filters.recount_by)
        yield first_audit_of(CurrentComparison.count_id, *numbers).is_(None)


def _has_prefix(prefix: str) -> ColumnElement[bool]:
    """Match a prefix of the bin's id or of the photo's key.

    The condition is a range and not LIKE, so that it can use an index, and % and _ are not special. Ids of bins are in
    NFC, but keys may be in another normal form that looks the same.
    """
    composed, decomposed = normalize("NFC", prefix), normalize("NFD", prefix)
    if "/" not in prefix:
        return _prefix_range(CurrentComparison.bin_id, composed)
    return or_(*(_prefix_range(CurrentComparison.key, form) for form in sorted({prefix, composed, decomposed})))


def _prefix_range(column: ColumnElement[str] | InstrumentedAttribute[str], prefix: str) -> ColumnElement[bool]:
    return and_(column >= prefix, column < prefix + _HIGHEST_CHARACTER)


def _discrepancy(row: RowMapping, alpha: float, direction: Suspicion) -> Discrepancy:
    audit = None
    if row["audit_id"] is not None:
        answer, quantity = AuditAnswer(row["audit_answer"]), row["audit_quantity"]
        audit = LastAudit(
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
    estimate = estimate_large_count(row["predicted"], row["distribution"])
    return Discrepancy(
        id=row["comparison_id"],
        bucket=row["bucket"],
        bin_id=row["bin_id"],
        key=row["key"],
        photo_id=row["count_id"],
        photo_at=row["photo_at"],
        model=row["model_version"],
        predicted=row["predicted"],
        count=describe_count(row["predicted"], estimate),
        expected=row["expected"],
        difference=row["difference"],
        difference_in_words=describe_difference(row["predicted"], row["expected"], estimate),
        outcome=outcome_of_difference(row["difference"]),
        chance=expected_probability(row, row["distribution"]),
        p_value=row["p_value"],
        p_missing=row["p_missing"],
        p_surplus=row["p_surplus"],
        flagged=is_flagged(row, alpha, direction),
        audit=audit,
    )


def expected_probability(row: RowMapping, distribution: Sequence[float] | None) -> float | None:
    """Return the probability of the expected quantity of a row of `current_comparisons`.

    Uses the model's full distribution if there is one. None if the calibration has no category for the quantity.
    """
    if row["doubt"] >= UNKNOWN_DOUBT:
        return None
    if distribution is None:
        return float(row["chance"])
    return float(distribution[min(row["expected"], len(distribution) - 1)])


def is_flagged(row: RowMapping, alpha: float, direction: Suspicion) -> bool:
    """Return whether a row of `current_comparisons` is flagged for the suspicion `direction`."""
    doubt = row["doubt" if direction is Suspicion.EITHER else "doubt_one_sided"]
    return is_suspect(row["difference"], direction) and bool(doubt <= alpha)


def _first_ref(rows: Sequence[RowMapping]) -> BinRef | None:
    return BinRef(bucket=rows[0]["bucket"], bin_id=rows[0]["bin_id"]) if rows else None


def _encode_cursor(row: RowMapping, direction: Direction) -> str:
    return encode(" ".join(repr(row[column.key]) for column in _rank_columns(direction)))


def _decode_cursor(cursor: str | None) -> RankKey | None:
    if cursor is None:
        return None
    try:
        # ASCII only, since float() also accepts the digits of other scripts.
        doubt, chance, comparison_id = decode(cursor).encode("ascii").split(b" ")
        position = (float(doubt), float(chance), int(comparison_id))
    except ValueError as error:
        raise BadCursor(cursor) from error
    if not (0 <= position[0] <= UNKNOWN_DOUBT and 0 <= position[1] <= 1 and 0 < position[2] <= MAX_ID):
        raise BadCursor(cursor)
    return position
