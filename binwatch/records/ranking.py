"""Updates the p-values of bins after their model's calibration has changed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, bindparam, func, literal, select, tuple_, update

from binwatch.conformal import judge
from binwatch.records.engine import WRITE
from binwatch.records.models import Calibrated, Calibrations
from binwatch.records.settle_bins import BinKey
from binwatch.records.settlement import Ranked, Row, rank_columns
from binwatch.records.tables import Bin, Comparison, Count, CurrentComparison, Model, RankTotal
from binwatch.records.totals import add_to_totals

logger = logging.getLogger(__name__)

RANKED_AT_A_TIME = 1000
"""Most bins in a transaction of `rank`."""
_PROGRESS = 100
"""Transactions between two log lines of `rank`."""


def rank(engine: Engine, models: Sequence[str] | None = None) -> int:
    """Update the p-values of bins that were not judged by their model's present calibration.

    Returns the number of bins. `models`: only these versions. After a broken connection, the next call continues.
    Progress is logged.
    """
    writable = engine.execution_options(**{WRITE: True})
    with engine.connect() as connection:
        calibrated = select(Model.model_version).where(Model.calibrations > 0).order_by(Model.model_version)
        versions = connection.execute(calibrated).scalars().all()
        wanted = [version for version in versions if models is None or version in models]
        number = select(func.count()).select_from(CurrentComparison)
        outdated = {one: connection.execute(number.where(*_outdated_of(one))).scalar_one() for one in wanted}
    return sum(_rank_model(writable, version, bins) for version, bins in outdated.items() if bins)


def _rank_model(writable: Engine, version: str, outdated: int) -> int:
    calibrations, ranked, chunks = Calibrations(), 0, 0
    place = (-1, 0)
    while True:
        with writable.begin() as connection:
            found = _outdated(connection, version, place)
            if not found:
                return ranked
            place = (found[-1]["calibration"], found[-1]["comparison_id"])
            rows = _still_outdated(connection, version, [(row["bucket"], row["bin_id"]) for row in found])
            present = select(Model.calibrations).where(Model.model_version == version)
            number = connection.execute(present).scalar_one()
            calibrated = calibrations.of(connection, {version: number}).get(version)
            if calibrated is None:  # damaged, which has been logged
                return ranked
            _write_ranks(connection, rows, calibrated)
            ranked += len(rows)
        chunks += 1
        if chunks % _PROGRESS == 0:
            logger.info("model %s: p-values of %d of %d bins updated", version, ranked, outdated)


def _outdated_of(version: str) -> tuple[ColumnElement[bool], ...]:
    present = select(Model.calibrations).where(Model.model_version == version).scalar_subquery()
    return CurrentComparison.model_version == version, CurrentComparison.calibration < present


def _outdated(connection: Connection, version: str, place: tuple[int, int]) -> Sequence[RowMapping]:
    """The next outdated bins after a place."""
    order = (CurrentComparison.calibration, CurrentComparison.comparison_id)
    statement = select(*order, CurrentComparison.bin_id, CurrentComparison.bucket).where(
        *_outdated_of(version), tuple_(*order) > tuple_(*(literal(part) for part in place))
    )
    return connection.execute(statement.order_by(*order).limit(RANKED_AT_A_TIME)).mappings().all()


def _still_outdated(connection: Connection, version: str, keys: Sequence[BinKey]) -> Sequence[RowMapping]:
    """Lock the bins; returns those still outdated. Bins that a worker has locked are skipped until the next run."""
    identity = tuple_(Bin.bucket, Bin.bin_id)
    locks = select(*identity.clauses).where(identity.in_(keys)).order_by(*identity.clauses)
    held = [(row[0], row[1]) for row in connection.execute(locks.with_for_update(skip_locked=True))]
    ours = tuple_(CurrentComparison.bucket, CurrentComparison.bin_id).in_(held)
    columns = ("bucket", "bin_id", "comparison_id", "expected", "difference", "p_value")
    statement = (
        select(*(getattr(CurrentComparison, name) for name in columns), Count.probabilities, Count.distribution)
        .join(Count, Count.id == CurrentComparison.count_id)
        .where(*_outdated_of(version), ours)
    )
    return connection.execute(statement).mappings().all()


def _write_ranks(connection: Connection, rows: Sequence[RowMapping], calibrated: Calibrated) -> None:
    if not rows:
        return
    found = [_rank_of(row, calibrated) for row in rows]
    p_values = ("p_value", "p_missing", "p_surplus")
    # The ledger keeps its first p-values: whether a bin was flagged when it was audited must not change.
    first = (Comparison.id == bindparam("of"), Comparison.p_value.is_(None))
    ledger = update(Comparison).where(*first).values(_new(p_values))
    connection.execute(ledger, [_only(row, "of", *p_values) for row in found])
    bins = (CurrentComparison.bin_id == bindparam("of_bin"), CurrentComparison.bucket == bindparam("of_bucket"))
    names = (*p_values, "doubt", "doubt_one_sided", "chance", "calibration")
    current = update(CurrentComparison).where(*bins).values(_new(names))
    connection.execute(current, [_only(row, "of_bin", "of_bucket", *names) for row in found])
    before = sum(row["p_value"] is not None for row in rows)
    more = sum(row["new_p_value"] is not None for row in found) - before
    if more:
        moved = ((Ranked.CALIBRATED, more), (Ranked.UNCALIBRATED, -more))
        totals = [{"kind": kind.value, "bins": bins} for kind, bins in moved]
        add_to_totals(connection, RankTotal, totals, datetime.now(UTC))


def _rank_of(row: RowMapping, calibrated: Calibrated) -> Row:
    judged = judge(row["probabilities"], row["expected"], calibrated.values, row["distribution"])
    columns = rank_columns(judged, row["difference"], calibrated.number)
    of = {"of": row["comparison_id"], "of_bin": row["bin_id"], "of_bucket": row["bucket"]}
    return of | {f"new_{name}": value for name, value in columns.items()}


def _new(names: Iterable[str]) -> Row:
    return {name: bindparam(f"new_{name}") for name in names}


def _only(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name.removeprefix("new_") in names}
