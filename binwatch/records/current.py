"""How bins compare now: one row for each bin whose latest photo was counted and whose expected quantity is known."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    RowMapping,
    bindparam,
    delete,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from binwatch.conformal import Judgement, judge
from binwatch.counts import beyond, difference_of
from binwatch.records.bins import BinKey
from binwatch.records.engine import WRITE
from binwatch.records.models import Calibrated, Calibrations
from binwatch.records.tables import Audit, Bin, Comparison, Count, CurrentComparison, Model, RankTotal
from binwatch.records.writing import Row, add_to_totals, insert_into

logger = logging.getLogger(__name__)

RANKED_AT_A_TIME = 1000
"""Rows in a transaction of `rank`."""
_PROGRESS = 100
"""Transactions between two log lines of `rank`."""
UNKNOWN = 3.0
"""Doubt of a bin of whose expected quantity the model says nothing: after those that it is certain of, which have 2."""


class Ranked(StrEnum):
    """What a bin is ranked by."""

    CALIBRATED = "calibrated"
    """A p-value."""
    UNCALIBRATED = "uncalibrated"
    """The probability of what is expected, or nothing."""


def doubt_of(chance: float | None, p_value: float | None) -> float:
    """What bins are ranked by, least first: the p-value; bins without one come after all that have one."""
    if p_value is not None:
        return p_value
    return UNKNOWN if chance is None else 1 + chance


class Compared(NamedTuple):
    """A bin that can be compared: what it points at, the comparison of that, and how it is judged now."""

    pair: Row
    """Has bucket, bin_id, count_id, expectation_id, model_version, key, etag, photo_at and distribution."""
    comparison: Row
    judgement: Judgement
    calibration: int
    """Number of the calibration that it is judged by (binwatch.records.models.Calibrated); 0 without one."""


def _judged(judged: Judgement, difference: int, calibration: int) -> Row:
    """The columns of a judgement of a bin."""
    return {
        "calibration": calibration,
        "chance": 1.0 if judged.chance is None else judged.chance,
        "p_value": judged.either,
        "p_missing": judged.missing,
        "p_surplus": judged.surplus,
        "doubt": doubt_of(judged.chance, judged.either),
        "doubt_one_sided": doubt_of(judged.chance, judged.missing if difference < 0 else judged.surplus),
    }


def refresh(connection: Connection, keys: Sequence[BinKey], bins: Sequence[Compared], now: datetime) -> None:
    """Bring the rows of these bins up to date, and their totals. The caller holds the locks on the bins.

    `bins` are those of `keys` that can be compared.
    """
    before = _ranked(connection, keys)
    if not bins and not before.total():
        return
    after = _replace(connection, keys, bins)
    after.subtract(before)
    _add(connection, after, now)


def _replace(connection: Connection, keys: Sequence[BinKey], bins: Sequence[Compared]) -> Counter[Ranked]:
    """Write the rows; returns how many there are now, by what they are ranked."""
    comparable = {(one.pair["bucket"], one.pair["bin_id"]) for one in bins}
    gone = [key for key in keys if key not in comparable]
    if gone:
        identity = tuple_(CurrentComparison.bucket, CurrentComparison.bin_id)
        connection.execute(delete(CurrentComparison).where(identity.in_(gone)))
    if not bins:
        return Counter()
    audited = _audits(connection, sorted(comparable))
    insert = insert_into(connection, CurrentComparison)
    changed = or_(
        CurrentComparison.comparison_id != insert.excluded.comparison_id,
        CurrentComparison.expectation_id != insert.excluded.expectation_id,
        CurrentComparison.calibration != insert.excluded.calibration,
    )
    kept = ("bucket", "bin_id")
    columns = [column.name for column in CurrentComparison.__table__.c if column.name not in kept]
    statement = insert.on_conflict_do_update(
        index_elements=kept, set_={name: insert.excluded[name] for name in columns}, where=changed
    )
    rows = [_row(one, audited.get(_photo(one.pair))) for one in bins]
    connection.execute(statement, rows)
    return Counter(Ranked.UNCALIBRATED if row["p_value"] is None else Ranked.CALIBRATED for row in rows)


def _ranked(connection: Connection, keys: Sequence[BinKey]) -> Counter[Ranked]:
    """How many of these bins are ranked by what."""
    identity = tuple_(CurrentComparison.bucket, CurrentComparison.bin_id)
    statement = select(func.count(CurrentComparison.p_value), func.count()).where(identity.in_(keys))
    with_p, every = connection.execute(statement).one()
    return Counter({Ranked.CALIBRATED: with_p, Ranked.UNCALIBRATED: every - with_p})


def _add(connection: Connection, bins: Mapping[Ranked, int], now: datetime) -> None:
    changes = [{"kind": kind.value, "bins": bins[kind], "last_at": now} for kind in Ranked if bins[kind]]
    add_to_totals(connection, RankTotal, changes)


def rank(engine: Engine, models: Sequence[str] | None = None) -> int:
    """Judge anew the bins that an earlier calibration of their model judged, or none.

    Returns how many. `models` limits it to their versions. A broken connection costs one chunk, and the next call goes
    on from there. Progress is logged.
    """
    writable = engine.execution_options(**{WRITE: True})
    with engine.connect() as connection:
        calibrated = select(Model.model_version).where(Model.calibrations > 0).order_by(Model.model_version)
        versions = connection.execute(calibrated).scalars().all()
        wanted = [version for version in versions if models is None or version in models]
        outdated = {version: _count_outdated(connection, version) for version in wanted}
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
            calibrated = calibrations.of(connection, [version]).get(version)
            if calibrated is None:  # it is damaged, and that is logged
                return ranked
            _write_ranks(connection, rows, calibrated)
            ranked += len(rows)
        chunks += 1
        if chunks % _PROGRESS == 0:
            logger.info("model %s: %d of %d bins judged by its present calibration", version, ranked, outdated)


def _outdated_of(version: str) -> tuple[ColumnElement[bool], ...]:
    present = select(Model.calibrations).where(Model.model_version == version).scalar_subquery()
    return CurrentComparison.model_version == version, CurrentComparison.calibration < present


def _count_outdated(connection: Connection, version: str) -> int:
    statement = select(func.count()).select_from(CurrentComparison).where(*_outdated_of(version))
    return connection.execute(statement).scalar_one()


def _outdated(connection: Connection, version: str, place: tuple[int, int]) -> Sequence[RowMapping]:
    """The next bins after a place."""
    order = (CurrentComparison.calibration, CurrentComparison.comparison_id)
    statement = select(*order, CurrentComparison.bin_id, CurrentComparison.bucket).where(
        *_outdated_of(version), tuple_(*order) > tuple_(*(literal(part) for part in place))
    )
    return connection.execute(statement.order_by(*order).limit(RANKED_AT_A_TIME)).mappings().all()


def _still_outdated(connection: Connection, version: str, keys: Sequence[BinKey]) -> Sequence[RowMapping]:
    """Those of these bins that are so once they are locked. What a worker holds is left for another run."""
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
    # What was flagged when somebody audited it stays as it was.
    first = (Comparison.id == bindparam("of"), Comparison.p_value.is_(None))
    ledger = update(Comparison).where(*first).values(_new(p_values))
    connection.execute(ledger, [_only(row, "of", *p_values) for row in found])
    bins = (CurrentComparison.bin_id == bindparam("of_bin"), CurrentComparison.bucket == bindparam("of_bucket"))
    names = (*p_values, "doubt", "doubt_one_sided", "chance", "calibration")
    current = update(CurrentComparison).where(*bins).values(_new(names))
    connection.execute(current, [_only(row, "of_bin", "of_bucket", *names) for row in found])
    before = sum(row["p_value"] is not None for row in rows)
    more = sum(row["new_p_value"] is not None for row in found) - before
    _add(connection, {Ranked.CALIBRATED: more, Ranked.UNCALIBRATED: -more}, datetime.now(UTC))


def _rank_of(row: RowMapping, calibrated: Calibrated) -> Row:
    judged = judge(row["probabilities"], row["expected"], calibrated.values, row["distribution"])
    columns = _judged(judged, row["difference"], calibrated.number)
    of = {"of": row["comparison_id"], "of_bin": row["bin_id"], "of_bucket": row["bucket"]}
    return of | {f"new_{name}": value for name, value in columns.items()}


def _new(names: Iterable[str]) -> Row:
    return {name: bindparam(f"new_{name}") for name in names}


def _only(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name.removeprefix("new_") in names}


def _audits(connection: Connection, keys: Sequence[BinKey]) -> dict[tuple[str, str, str], int]:
    """Photo → its last audit. The photo counts, not the count: a newer model sees the same items."""
    statement = (
        select(Audit.id, Count.bucket, Count.key, Count.etag)
        .join(Count, Count.id == Audit.count_id)
        .where(tuple_(Audit.bucket, Audit.bin_id).in_(keys))
        .order_by(Audit.id)
    )
    return {_photo(dict(row)): row["id"] for row in connection.execute(statement).mappings()}


def _row(of: Compared, audit: int | None) -> Row:
    pair, compared = of.pair, of.comparison
    shared = ("bucket", "bin_id", "count_id", "expectation_id", "model_version")
    finer = beyond(compared["predicted"], pair["distribution"])
    difference = difference_of(compared["predicted"], compared["expected"], finer)
    return {
        **{name: pair[name] for name in (*shared, "key", "photo_at")},
        **{name: compared[name] for name in ("predicted", "expected")},
        **_judged(of.judgement, difference, of.calibration),
        "difference": difference,
        "comparison_id": compared["id"],
        "audit_id": audit,
    }


def _photo(row: Row) -> tuple[str, str, str]:
    return row["bucket"], row["key"], row["etag"]
