"""After a change of a model's calibration, updates the p-values by which its bins are ranked."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, bindparam, func, literal, select, tuple_, update

from binwatch.conformal import judge
from binwatch.records.engine import for_writing
from binwatch.records.models import Calibrations, CurrentCalibration
from binwatch.records.settle_bins import BinKey
from binwatch.records.settlement import RankKind, Row, rank_columns
from binwatch.records.tables import Bin, Comparison, Count, CurrentComparison, Model, RankTotal
from binwatch.records.totals import add_to_totals

logger = logging.getLogger(__name__)

BINS_PER_TRANSACTION = 1000
_TRANSACTIONS_PER_LOG_LINE = 100


def update_p_values(engine: Engine, models: Sequence[str] | None = None) -> int:
    """Update the p-values of bins that were not judged by their model's current calibration. Logs progress.

    Returns the number of bins. `models` restricts the update to these versions. After a lost connection, the next call
    continues where this one stopped.
    """
    with engine.connect() as connection:
        calibrated = select(Model.model_version).where(Model.calibrations > 0).order_by(Model.model_version)
        versions = connection.execute(calibrated).scalars().all()
        count = select(func.count()).select_from(CurrentComparison)
        outdated = {
            version: connection.execute(count.where(*_outdated_conditions(version))).scalar_one()
            for version in versions
            if models is None or version in models
        }
    return sum(_update_model(for_writing(engine), version, bins) for version, bins in outdated.items() if bins)


def _update_model(engine: Engine, version: str, outdated: int) -> int:
    """Update the bins of a model; returns their number. `outdated` is the expected number, for progress."""
    calibrations, updated, transactions = Calibrations(), 0, 0
    position = (-1, 0)
    while True:
        with engine.begin() as connection:
            bins = _next_outdated(connection, version, position)
            if not bins:
                return updated
            position = (bins[-1]["calibration"], bins[-1]["comparison_id"])
            rows = _lock_outdated(connection, version, [(row["bucket"], row["bin_id"]) for row in bins])
            current_number = select(Model.calibrations).where(Model.model_version == version)
            number = connection.execute(current_number).scalar_one()
            calibration = calibrations.current(connection, {version: number}).get(version)
            if calibration is None:  # damaged, which has been logged
                return updated
            _write_p_values(connection, rows, calibration)
            updated += len(rows)
        transactions += 1
        if transactions % _TRANSACTIONS_PER_LOG_LINE == 0:
            logger.info("model %s: p-values of %d of %d bins updated", version, updated, outdated)


def _outdated_conditions(version: str) -> tuple[ColumnElement[bool], ...]:
    current_number = select(Model.calibrations).where(Model.model_version == version).scalar_subquery()
    return CurrentComparison.model_version == version, CurrentComparison.calibration < current_number


def _next_outdated(connection: Connection, version: str, position: tuple[int, int]) -> Sequence[RowMapping]:
    """Return the next outdated bins after a position in the order of calibration and comparison."""
    order = (CurrentComparison.calibration, CurrentComparison.comparison_id)
    statement = select(*order, CurrentComparison.bin_id, CurrentComparison.bucket).where(
        *_outdated_conditions(version), tuple_(*order) > tuple_(*(literal(value) for value in position))
    )
    return connection.execute(statement.order_by(*order).limit(BINS_PER_TRANSACTION)).mappings().all()


def _lock_outdated(connection: Connection, version: str, keys: Sequence[BinKey]) -> Sequence[RowMapping]:
    """Lock the bins; returns those still outdated. Bins that a worker has locked are skipped until the next run."""
    identity = tuple_(Bin.bucket, Bin.bin_id)
    select_bins = select(*identity.clauses).where(identity.in_(keys)).order_by(*identity.clauses)
    locked = [(row[0], row[1]) for row in connection.execute(select_bins.with_for_update(skip_locked=True))]
    is_locked = tuple_(CurrentComparison.bucket, CurrentComparison.bin_id).in_(locked)
    columns = ("bucket", "bin_id", "comparison_id", "expected", "difference", "p_value")
    statement = (
        select(*(getattr(CurrentComparison, name) for name in columns), Count.probabilities, Count.distribution)
        .join(Count, Count.id == CurrentComparison.count_id)
        .where(*_outdated_conditions(version), is_locked)
    )
    return connection.execute(statement).mappings().all()


def _write_p_values(connection: Connection, rows: Sequence[RowMapping], calibration: CurrentCalibration) -> None:
    if not rows:
        return
    parameters = [_update_parameters(row, calibration) for row in rows]
    p_values = ("p_value", "p_missing", "p_surplus")
    # The ledger keeps its first p-values: whether a bin was flagged when it was audited must not change.
    without_p_value = (Comparison.id == bindparam("of"), Comparison.p_value.is_(None))
    ledger = update(Comparison).where(*without_p_value).values(_bind_new(p_values))
    connection.execute(ledger, [_only(row, "of", *p_values) for row in parameters])
    is_bin = (CurrentComparison.bin_id == bindparam("of_bin"), CurrentComparison.bucket == bindparam("of_bucket"))
    columns = (*p_values, "doubt", "doubt_one_sided", "chance", "calibration")
    current = update(CurrentComparison).where(*is_bin).values(_bind_new(columns))
    connection.execute(current, [_only(row, "of_bin", "of_bucket", *columns) for row in parameters])
    calibrated_before = sum(row["p_value"] is not None for row in rows)
    calibrated_now = sum(row["new_p_value"] is not None for row in parameters)
    if change := calibrated_now - calibrated_before:
        changes = ((RankKind.CALIBRATED, change), (RankKind.UNCALIBRATED, -change))
        totals = [{"kind": kind.value, "bins": bins} for kind, bins in changes]
        add_to_totals(connection, RankTotal, totals, datetime.now(UTC))


def _update_parameters(row: RowMapping, calibration: CurrentCalibration) -> Row:
    judgement = judge(row["probabilities"], row["expected"], calibration.p_values, row["distribution"])
    columns = rank_columns(judgement, row["difference"], calibration.number)
    identity = {"of": row["comparison_id"], "of_bin": row["bin_id"], "of_bucket": row["bucket"]}
    return identity | {f"new_{name}": value for name, value in columns.items()}


def _bind_new(columns: Iterable[str]) -> Row:
    return {name: bindparam(f"new_{name}") for name in columns}


def _only(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name.removeprefix("new_") in names}
