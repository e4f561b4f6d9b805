"""Settles bins in the database: locks them, reads their previous and latest state, and writes the new state.

To avoid deadlocks, writers take locks in this order: rows of a ledger in the order of their identity; bins by bucket
and id; the rows of these bins (comparisons, current comparisons, variances); then the totals, each in the order of its
labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, RowMapping, and_, bindparam, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.orm import aliased

from binwatch.records.models import Calibrations
from binwatch.records.settle_variances import supersede_variances
from binwatch.records.settlement import (
    BinFacts,
    LatestPhoto,
    LatestQuantity,
    ListedBin,
    PhotoState,
    QuantityState,
    Row,
    Settlement,
    rank_kind,
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
    confusion_totals,
    rank_totals,
    slice_confusion_totals,
)
from binwatch.records.upsert import insert_into

BinKey = tuple[str, str]
"""Bucket and bin id."""
UploadOrder = tuple[datetime, int]
"""Orders uploads by S3's clock, then by row id: a newer model's count of the same photo comes later."""
PHOTO_COLUMNS = ("photo_at", "count_id")
"""Columns of `bins` with a bin's latest photo."""
QUANTITY_COLUMNS = ("expected_at", "expectation_id")
"""Columns of `bins` with a bin's latest expected quantity."""
_IS_UNDECIDED = and_(Variance.bucket == Bin.bucket, Variance.bin_id == Bin.bin_id, Variance.closed_at.is_(None))


def settle_bins(
    connection: Connection,
    latest: Mapping[BinKey, UploadOrder],
    columns: tuple[str, str],
    calibrations: Calibrations,
    now: datetime,
) -> None:
    """Set each bin's latest photo or quantity, and write the bin's new state.

    `latest` maps bins to values of `columns`: PHOTO_COLUMNS or QUANTITY_COLUMNS. Bins whose latest row stays the same
    are settled too, since that row may have changed from a failure to a success.
    """
    if not latest:
        return
    _lock_and_update(connection, latest, columns)
    rows = _read(connection, sorted(latest))
    numbers = {row["model_version"]: row["calibrations"] for row in rows if row["calibrations"] is not None}
    calibration_by_model = calibrations.current(connection, numbers)
    settlements = [settle(_facts(row), calibration_by_model.get(row["model_version"])) for row in rows]
    comparisons = [item.comparison | {"compared_at": now} for item in settlements if item.comparison]
    _write_states(connection, settlements)
    _write_current(connection, settlements, _append_comparisons(connection, comparisons))
    variances = supersede_variances(connection, list(_corrected_variances(rows)), now)
    add_to_totals(connection, BinTotal, bin_totals(settlements), now)
    add_to_totals(connection, ConfusionTotal, confusion_totals(comparisons), now)
    add_to_totals(connection, SliceConfusionTotal, slice_confusion_totals(settlements), now)
    add_to_totals(connection, ComparisonHour, comparison_hours(comparisons, now), now)
    add_to_totals(connection, RankTotal, rank_totals(settlements), now)
    add_to_totals(connection, VarianceTotal, variances, now)


def _lock_and_update(connection: Connection, latest: Mapping[BinKey, UploadOrder], columns: tuple[str, str]) -> None:
    """Insert new bins, and update those whose latest row is older. Locks all of them.

    PostgreSQL also locks a row that the condition leaves unchanged. The lock lets a count and a quantity that arrive at
    the same time see each other. The states are read by a separate statement: a SELECT … FOR UPDATE that had to
    wait would join the bin's new row with an earlier state of the other tables.
    """
    time_column, id_column = columns
    statement = insert_into(connection, Bin)
    stored = tuple_(getattr(Bin, time_column), getattr(Bin, id_column))
    new = {name: statement.excluded[name] for name in columns}
    is_older = or_(getattr(Bin, id_column).is_(None), stored < tuple_(*new.values()))
    statement = statement.on_conflict_do_update(index_elements=("bucket", "bin_id"), set_=new, where=is_older)
    # With RETURNING, SQLAlchemy sends the rows in a single statement.
    connection.execute(
        statement.returning(Bin.bin_id),
        [
            {"bucket": bucket, "bin_id": bin_id, time_column: time, id_column: row_id}
            for (bucket, bin_id), (time, row_id) in sorted(latest.items())
        ],
    )


def _read(connection: Connection, keys: Sequence[BinKey]) -> list[RowMapping]:
    """Read the previous and the latest state of each bin, with the comparison of its count and its quantity.

    Earlier releases recorded several comparisons of a pair; the last one is returned.
    """
    audited = aliased(Count)
    audit_id = (
        select(func.max(Audit.id))
        .join(audited, audited.id == Audit.count_id)
        .where(Audit.bucket == Bin.bucket, Audit.bin_id == Bin.bin_id)
        # By photo rather than count, since an audit also holds for a newer model's count.
        .where(audited.bucket == Count.bucket, audited.key == Count.key, audited.etag == Count.etag)
        .scalar_subquery()
    )
    statement = (
        select(
            *(Bin.bucket, Bin.bin_id, Bin.photo_state, Bin.quantity_state, Bin.count_id, Bin.expectation_id),
            *(Count.model_version, Count.key, Count.modified_at, Count.reason.label("photo_reason"), Count.predicted),
            *(
                Count.probabilities,
                Count.distribution,
                Count.slice_id,
                Model.calibrations,
                audit_id.label("audit_id"),
            ),
            *(Expectation.reason.label("quantity_reason"), Expectation.quantity),
            Comparison.id.label("comparison_id"),
            CurrentComparison.comparison_id.label("listed_comparison"),
            CurrentComparison.expectation_id.label("listed_expectation"),
            CurrentComparison.calibration.label("listed_calibration"),
            CurrentComparison.p_value.label("listed_p_value"),
            *(Variance.id, Variance.state, Variance.expected.label("disputed_quantity")),
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
    rows = connection.execute(statement).mappings()
    return list({(row["bucket"], row["bin_id"]): row for row in rows}.values())


def _facts(row: RowMapping) -> BinFacts:
    states = listed = quantity = None
    if row["photo_state"] is not None:
        states = PhotoState(row["photo_state"]), QuantityState(row["quantity_state"])
    if row["listed_comparison"] is not None:
        listed = ListedBin(
            comparison_id=row["listed_comparison"],
            expectation_id=row["listed_expectation"],
            calibration=row["listed_calibration"],
            ranked=rank_kind(row["listed_p_value"]),
        )
    if row["expectation_id"] is not None:
        quantity = LatestQuantity(row["expectation_id"], None if row["quantity_reason"] else row["quantity"])
    return BinFacts(
        bucket=row["bucket"],
        bin_id=row["bin_id"],
        states=states,
        listed=listed,
        photo=None if row["count_id"] is None else _latest_photo(row),
        quantity=quantity,
        comparison_id=row["comparison_id"],
    )


def _corrected_variances(rows: Sequence[RowMapping]) -> Iterator[tuple[RowMapping, int]]:
    """Yield the rows with an undecided variance whose expected quantity has changed, each with the new quantity."""
    for row in rows:
        quantity = None if row["quantity_reason"] else row["quantity"]
        if row["disputed_quantity"] is not None and quantity not in (None, row["disputed_quantity"]):
            yield row, quantity


def _latest_photo(row: RowMapping) -> LatestPhoto:
    return LatestPhoto(
        count_id=row["count_id"],
        model_version=row["model_version"],
        key=row["key"],
        stored_at=row["modified_at"],
        predicted=None if row["photo_reason"] else row["predicted"],
        probabilities=row["probabilities"],
        distribution=row["distribution"],
        audit_id=row["audit_id"],
        slice_id=row["slice_id"],
    )


def _write_states(connection: Connection, settlements: Sequence[Settlement]) -> None:
    changed = [item for item in settlements if item.states != item.facts.states]
    if not changed:
        return
    is_bin = and_(Bin.bucket == bindparam("of_bucket"), Bin.bin_id == bindparam("of_bin"))
    connection.execute(
        update(Bin).where(is_bin),
        [
            {
                "of_bucket": item.facts.bucket,
                "of_bin": item.facts.bin_id,
                "photo_state": item.states[0].value,
                "quantity_state": item.states[1].value,
            }
            for item in changed
        ],
    )


def _append_comparisons(connection: Connection, comparisons: Sequence[Row]) -> dict[tuple[int, int], int]:
    """Append comparisons to the ledger; returns their ids by count and quantity."""
    if not comparisons:
        return {}
    statement = insert(Comparison).returning(Comparison.count_id, Comparison.expected, Comparison.id)
    return {(count_id, quantity): row_id for count_id, quantity, row_id in connection.execute(statement, comparisons)}


def _write_current(
    connection: Connection, settlements: Sequence[Settlement], appended: Mapping[tuple[int, int], int]
) -> None:
    """Bring `current_comparisons` up to date. `appended` has the ids of new comparisons by count and quantity."""
    removed = [
        (item.facts.bucket, item.facts.bin_id) for item in settlements if item.facts.listed and item.ranked is None
    ]
    if removed:
        identity = tuple_(CurrentComparison.bucket, CurrentComparison.bin_id)
        connection.execute(delete(CurrentComparison).where(identity.in_(removed)))
    rows = [
        row | {"comparison_id": row["comparison_id"] or appended[row["count_id"], row["expected"]]}
        for row in (item.current for item in settlements if item.current)
    ]
    if not rows:
        return
    statement = insert_into(connection, CurrentComparison)
    identity_columns = ("bucket", "bin_id")
    changes = {name: statement.excluded[name] for name in rows[0] if name not in identity_columns}
    connection.execute(statement.on_conflict_do_update(index_elements=identity_columns, set_=changes), rows)
