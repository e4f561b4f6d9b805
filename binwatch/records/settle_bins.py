"""Settles bins in the database: locks them, reads their previous and latest state, and writes the new state.

To avoid deadlocks, writers take locks in this order: rows of a ledger in the order of their identity; bins by bucket
and id; the rows of these bins (comparisons, current comparisons, variances); last the totals, each in the order of its
labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, RowMapping, and_, bindparam, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.orm import aliased

from binwatch.records.models import Calibrations
from binwatch.records.settle_variances import supersede
from binwatch.records.settlement import (
    BinFacts,
    LatestPhoto,
    LatestQuantity,
    ListedBin,
    PhotoState,
    QuantityState,
    Row,
    Settlement,
    ranked_by,
    settle,
)
from binwatch.records.tables import (
    Audit,
    Bin,
    BinTotal,
    Comparison,
    ComparisonHour,
    ConfusionTotal,
    Count,
    CurrentComparison,
    Expectation,
    Model,
    RankTotal,
    SliceConfusionTotal,
    Variance,
    VarianceTotal,
)
from binwatch.records.totals import (
    add_to_totals,
    bin_totals,
    comparison_hours,
    confusions,
    rank_totals,
    slice_confusions,
)
from binwatch.records.upsert import insert_into

BinKey = tuple[str, str]
"""Bucket and bin id."""
Age = tuple[datetime, int]
"""Orders uploads by the store's clock, then by row id: a newer model's count of the same photo is newer."""
LATEST_PHOTO = ("photo_at", "count_id")
LATEST_QUANTITY = ("expected_at", "expectation_id")
"""Columns of `bins` with the latest photo and the latest quantity."""
_IS_UNDECIDED = and_(Variance.bucket == Bin.bucket, Variance.bin_id == Bin.bin_id, Variance.closed_at.is_(None))


def settle_bins(
    connection: Connection,
    latest: Mapping[BinKey, Age],
    columns: tuple[str, str],
    calibrations: Calibrations,
    now: datetime,
) -> None:
    """Set each bin's latest photo or quantity, and write the bin's new state.

    `columns`: the columns of `bins` that `latest` is for. Bins whose latest row does not change are settled too, since
    the row may have changed from a failure to a count.
    """
    if not latest:
        return
    _lock(connection, latest, columns)
    rows = _read(connection, sorted(latest))
    numbers = {row["model_version"]: row["calibrations"] for row in rows if row["calibrations"] is not None}
    calibrated = calibrations.of(connection, numbers)
    settlements = [settle(_facts(row), calibrated.get(row["model_version"])) for row in rows]
    comparisons = [one.comparison | {"compared_at": now} for one in settlements if one.comparison]
    _write_states(connection, settlements)
    _write_current(connection, settlements, _append(connection, comparisons))
    variances = supersede(connection, list(_corrected(rows)), now)
    add_to_totals(connection, BinTotal, bin_totals(settlements), now)
    add_to_totals(connection, ConfusionTotal, confusions(comparisons), now)
    add_to_totals(connection, SliceConfusionTotal, slice_confusions(settlements), now)
    add_to_totals(connection, ComparisonHour, comparison_hours(comparisons, now), now)
    add_to_totals(connection, RankTotal, rank_totals(settlements), now)
    add_to_totals(connection, VarianceTotal, variances, now)


def _lock(connection: Connection, latest: Mapping[BinKey, Age], columns: tuple[str, str]) -> None:
    """Insert new bins, and update those whose latest row is older. Locks all of them.

    PostgreSQL also locks a row that the condition leaves unchanged. With the lock, a count and a quantity that arrive
    at the same time see each other. It needs a separate statement: a SELECT … FOR UPDATE that had to wait would join
    the bin's present row with an earlier state of the other tables.
    """
    time, identifier = columns
    statement = insert_into(connection, Bin)
    was = tuple_(getattr(Bin, time), getattr(Bin, identifier))
    new = {name: statement.excluded[name] for name in columns}
    is_older = or_(getattr(Bin, identifier).is_(None), was < tuple_(*new.values()))
    statement = statement.on_conflict_do_update(index_elements=("bucket", "bin_id"), set_=new, where=is_older)
    # With RETURNING, SQLAlchemy sends the rows in a single statement.
    connection.execute(
        statement.returning(Bin.bin_id),
        [
            {"bucket": bucket, "bin_id": bin_id, time: at, identifier: row_id}
            for (bucket, bin_id), (at, row_id) in sorted(latest.items())
        ],
    )


def _read(connection: Connection, keys: Sequence[BinKey]) -> list[RowMapping]:
    """The previous and the latest state of each bin, with the last comparison of its count and its quantity.

    Earlier releases recorded several comparisons; the last one is listed.
    """
    judged = aliased(Count)
    audit = (
        select(func.max(Audit.id))
        .join(judged, judged.id == Audit.count_id)
        .where(Audit.bucket == Bin.bucket, Audit.bin_id == Bin.bin_id)
        # Of the same photo, not only of the same count: the audit holds for a newer model's count, too.
        .where(judged.bucket == Count.bucket, judged.key == Count.key, judged.etag == Count.etag)
        .scalar_subquery()
    )
    statement = (
        select(
            *(Bin.bucket, Bin.bin_id, Bin.photo_state, Bin.quantity_state, Bin.count_id, Bin.expectation_id),
            *(Count.model_version, Count.key, Count.modified_at, Count.reason.label("photo_reason"), Count.predicted),
            *(Count.probabilities, Count.distribution, Count.slice_id, Model.calibrations, audit.label("audit_id")),
            *(Expectation.reason.label("quantity_reason"), Expectation.quantity),
            Comparison.id.label("comparison_id"),
            CurrentComparison.comparison_id.label("listed_comparison"),
            CurrentComparison.expectation_id.label("listed_expectation"),
            CurrentComparison.calibration.label("listed_calibration"),
            CurrentComparison.p_value.label("listed_p_value"),
            *(Variance.id, Variance.state, Variance.expected.label("disputed")),
        )
        .select_from(Bin)
        .outerjoin(Count, Count.id == Bin.count_id)
        .outerjoin(Expectation, Expectation.id == Bin.expectation_id)
        .outerjoin(Model, Model.model_version == Count.model_version)
        .outerjoin(
            CurrentComparison, and_(CurrentComparison.bin_id == Bin.bin_id, CurrentComparison.bucket == Bin.bucket)
        )
        .outerjoin(Comparison, and_(Comparison.count_id == Bin.count_id, Comparison.expected == Expectation.quantity))
        .outerjoin(Variance, _IS_UNDECIDED)
        .where(tuple_(Bin.bucket, Bin.bin_id).in_(keys))
        .order_by(Bin.bucket, Bin.bin_id, Comparison.id)
    )
    found = connection.execute(statement).mappings()
    return list({(row["bucket"], row["bin_id"]): row for row in found}.values())


def _facts(row: RowMapping) -> BinFacts:
    states = listed = quantity = None
    if row["photo_state"] is not None:
        states = PhotoState(row["photo_state"]), QuantityState(row["quantity_state"])
    if row["listed_comparison"] is not None:
        listed = ListedBin(
            comparison_id=row["listed_comparison"],
            expectation_id=row["listed_expectation"],
            calibration=row["listed_calibration"],
            ranked=ranked_by(row["listed_p_value"]),
        )
    if row["expectation_id"] is not None:
        quantity = LatestQuantity(row["expectation_id"], None if row["quantity_reason"] else row["quantity"])
    return BinFacts(
        bucket=row["bucket"],
        bin_id=row["bin_id"],
        states=states,
        listed=listed,
        photo=None if row["count_id"] is None else _photo(row),
        quantity=quantity,
        comparison_id=row["comparison_id"],
    )


def _corrected(rows: Sequence[RowMapping]) -> Iterator[tuple[RowMapping, int]]:
    """Rows of bins with an undecided variance whose expected quantity has changed, each with the new quantity."""
    for row in rows:
        quantity = None if row["quantity_reason"] else row["quantity"]
        if row["disputed"] is not None and quantity not in (None, row["disputed"]):
            yield row, quantity


def _photo(row: RowMapping) -> LatestPhoto:
    return LatestPhoto(
        count_id=row["count_id"],
        model_version=row["model_version"],
        key=row["key"],
        at=row["modified_at"],
        predicted=None if row["photo_reason"] else row["predicted"],
        probabilities=row["probabilities"],
        distribution=row["distribution"],
        audit_id=row["audit_id"],
        slice_id=row["slice_id"],
    )


def _write_states(connection: Connection, settlements: Sequence[Settlement]) -> None:
    changed = [one for one in settlements if one.states != one.facts.states]
    if not changed:
        return
    where = and_(Bin.bucket == bindparam("of_bucket"), Bin.bin_id == bindparam("of_bin"))
    connection.execute(
        update(Bin).where(where),
        [
            {
                "of_bucket": one.facts.bucket,
                "of_bin": one.facts.bin_id,
                "photo_state": one.states[0].value,
                "quantity_state": one.states[1].value,
            }
            for one in changed
        ],
    )


def _append(connection: Connection, comparisons: Sequence[Row]) -> dict[tuple[int, int], int]:
    """Append comparisons to the ledger; returns their ids by count and quantity."""
    if not comparisons:
        return {}
    statement = insert(Comparison).returning(Comparison.count_id, Comparison.expected, Comparison.id)
    return {(count, quantity): id_ for count, quantity, id_ in connection.execute(statement, comparisons)}


def _write_current(
    connection: Connection, settlements: Sequence[Settlement], appended: Mapping[tuple[int, int], int]
) -> None:
    """Bring `current_comparisons` up to date; `appended` are the ids of new comparisons by count and quantity."""
    gone = [(one.facts.bucket, one.facts.bin_id) for one in settlements if one.facts.listed and one.ranked is None]
    if gone:
        identity = tuple_(CurrentComparison.bucket, CurrentComparison.bin_id)
        connection.execute(delete(CurrentComparison).where(identity.in_(gone)))
    rows = [
        row | {"comparison_id": row["comparison_id"] or appended[row["count_id"], row["expected"]]}
        for row in (one.current for one in settlements if one.current)
    ]
    if not rows:
        return
    statement = insert_into(connection, CurrentComparison)
    kept = ("bucket", "bin_id")
    changed = {name: statement.excluded[name] for name in rows[0] if name not in kept}
    connection.execute(statement.on_conflict_do_update(index_elements=kept, set_=changed), rows)
