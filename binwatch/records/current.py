"""How bins compare now: one row for each bin whose latest photo was counted and whose expected quantity is known."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import Connection, Engine, RowMapping, bindparam, delete, func, literal, or_, select, tuple_, update

from binwatch.conformal import Judgement, PValues, judge
from binwatch.counts import beyond, difference_of
from binwatch.records.bins import BinKey
from binwatch.records.engine import WRITE
from binwatch.records.models import Calibrations
from binwatch.records.tables import Audit, Bin, Comparison, Count, CurrentComparison, Model, RankTotal
from binwatch.records.writing import Row, add_to_totals, insert_into

logger = logging.getLogger(__name__)

RANKED_AT_A_TIME = 1000
"""Rows in a transaction of `rank`."""
_PROGRESS = 100
"""Transactions between two log lines of `rank`."""
UNKNOWN = 2.0
"""Doubt of a bin of which the model says nothing, or whose expected class it is certain of."""


class Ranked(StrEnum):
    """What a bin is ranked by."""

    CALIBRATED = "calibrated"
    """A p-value."""
    UNCALIBRATED = "uncalibrated"
    """Only the probability of what is expected."""


def doubt_of(chance: float | None, p_value: float | None) -> float:
    """What bins are ranked by, least first: the p-value; bins without one come after all that have one."""
    return p_value if p_value is not None else 1 + _known(chance)


def _doubts(judged: Judgement, difference: int) -> Row:
    """The columns of a judgement of a bin."""
    return {
        "p_value": judged.either,
        "p_missing": judged.missing,
        "p_surplus": judged.surplus,
        "doubt": doubt_of(judged.chance, judged.either),
        "doubt_one_sided": doubt_of(judged.chance, judged.missing if difference < 0 else judged.surplus),
    }


def refresh(connection: Connection, keys: Sequence[BinKey], pairs: Sequence[tuple[Row, Row]], now: datetime) -> None:
    """Bring the rows of these bins up to date, and their totals. The caller holds the locks on the bins.

    `pairs` are the bins that can be compared, with what they point at (bucket, bin_id, count_id, expectation_id,
    model_version, key, etag, photo_at and distribution), and the comparison of each.
    """
    before = _ranked(connection, keys)
    if not pairs and not before.total():
        return
    after = _replace(connection, keys, pairs)
    after.subtract(before)
    _add(connection, after, now)


def _replace(connection: Connection, keys: Sequence[BinKey], pairs: Sequence[tuple[Row, Row]]) -> Counter[Ranked]:
    """Write the rows; returns how many there are now, by what they are ranked."""
    comparable = {(pair["bucket"], pair["bin_id"]) for pair, _ in pairs}
    gone = [key for key in keys if key not in comparable]
    if gone:
        identity = tuple_(CurrentComparison.bucket, CurrentComparison.bin_id)
        connection.execute(delete(CurrentComparison).where(identity.in_(gone)))
    if not pairs:
        return Counter()
    audited = _audits(connection, sorted(comparable))
    insert = insert_into(connection, CurrentComparison)
    changed = or_(
        CurrentComparison.comparison_id != insert.excluded.comparison_id,
        CurrentComparison.expectation_id != insert.excluded.expectation_id,
    )
    kept = ("bucket", "bin_id")
    columns = [column.name for column in CurrentComparison.__table__.c if column.name not in kept]
    statement = insert.on_conflict_do_update(
        index_elements=kept, set_={name: insert.excluded[name] for name in columns}, where=changed
    )
    rows = [_row(pair, compared, audited.get(_photo(pair))) for pair, compared in pairs]
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
    """Give p-values to the bins that were compared before their model's calibration was recorded.

    Returns how many got them. `models` limits it to their versions. A broken connection costs one chunk, and the next
    call goes on from there. Progress is logged.
    """
    writable = engine.execution_options(**{WRITE: True})
    calibrations, ranked, chunks = Calibrations(), 0, 0
    after = (1.0, -1.0, 0)
    while True:
        with writable.begin() as connection:
            found_without = _unranked(connection, models, after)
            if not found_without:
                return ranked
            last = found_without[-1]
            after = (last["doubt"], last["chance"], last["comparison_id"])
            rows = _still_unranked(connection, [(row["bucket"], row["bin_id"]) for row in found_without])
            values = calibrations.of(connection, {row["model_version"] for row in rows})
            found = list(_ranks(rows, values))
            if found:
                _write_ranks(connection, found)
                moved = {Ranked.CALIBRATED: len(found), Ranked.UNCALIBRATED: -len(found)}
                _add(connection, moved, datetime.now(UTC))
                ranked += len(found)
        chunks += 1
        if chunks % _PROGRESS == 0:
            logger.info("%d bins have got p-values so far", ranked)


_WITHOUT = (CurrentComparison.doubt >= 1, CurrentComparison.p_value.is_(None))
"""Doubt 1 is a p-value of 1, or none and probability 0. What stays without p-value is looked at with each call."""
_PLACE = (CurrentComparison.doubt, CurrentComparison.chance, CurrentComparison.comparison_id)


def _unranked(
    connection: Connection, models: Sequence[str] | None, after: tuple[float, float, int]
) -> Sequence[RowMapping]:
    """The next bins in the ranking that have no p-value although their model has a calibration."""
    calibrated = select(Model.model_version).where(Model.calibrated_at.is_not(None))
    statement = select(*_PLACE, CurrentComparison.bin_id, CurrentComparison.bucket).where(
        *_WITHOUT,
        tuple_(*_PLACE) > tuple_(*(literal(part) for part in after)),
        CurrentComparison.model_version.in_(calibrated if models is None else models),
    )
    return connection.execute(statement.order_by(*_PLACE).limit(RANKED_AT_A_TIME)).mappings().all()


def _still_unranked(connection: Connection, keys: Sequence[BinKey]) -> Sequence[RowMapping]:
    """Those of these bins that are so once they are locked. What a worker holds is left for another run."""
    identity = tuple_(Bin.bucket, Bin.bin_id)
    locks = select(*identity.clauses).where(identity.in_(keys)).order_by(*identity.clauses)
    held = [(row[0], row[1]) for row in connection.execute(locks.with_for_update(skip_locked=True))]
    ours = tuple_(CurrentComparison.bucket, CurrentComparison.bin_id).in_(held)
    columns = ("bucket", "bin_id", "comparison_id", "model_version", "expected", "difference")
    statement = (
        select(*(getattr(CurrentComparison, name) for name in columns), Count.probabilities, Count.distribution)
        .join(Count, Count.id == CurrentComparison.count_id)
        .where(*_WITHOUT, ours)
    )
    return connection.execute(statement).mappings().all()


def _ranks(rows: Sequence[RowMapping], values: Mapping[str, PValues]) -> Iterator[Row]:
    for row in rows:
        judged = judge(row["probabilities"], row["expected"], values.get(row["model_version"]), row["distribution"])
        if judged.either is not None:
            of = {"of": row["comparison_id"], "of_bin": row["bin_id"], "of_bucket": row["bucket"]}
            yield of | {f"new_{name}": value for name, value in _doubts(judged, row["difference"]).items()}


def _write_ranks(connection: Connection, found: list[Row]) -> None:
    p_values, doubts = ("p_value", "p_missing", "p_surplus"), ("doubt", "doubt_one_sided")
    ledger = update(Comparison).where(Comparison.id == bindparam("of")).values(_new(p_values))
    connection.execute(ledger, [_only(row, "of", *p_values) for row in found])
    bins = (CurrentComparison.bin_id == bindparam("of_bin"), CurrentComparison.bucket == bindparam("of_bucket"))
    current = update(CurrentComparison).where(*bins).values(_new((*p_values, *doubts)))
    connection.execute(current, [_only(row, "of_bin", "of_bucket", *p_values, *doubts) for row in found])


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


def _row(pair: Row, compared: Row, audit: int | None) -> Row:
    shared = ("bucket", "bin_id", "count_id", "expectation_id", "model_version")
    finer = beyond(compared["predicted"], pair["distribution"])
    difference = difference_of(compared["predicted"], compared["expected"], finer)
    judged = Judgement(*(compared[name] for name in ("chance", "p_value", "p_missing", "p_surplus")))
    return {
        **{name: pair[name] for name in (*shared, "key", "photo_at")},
        **{name: compared[name] for name in ("predicted", "expected")},
        **_doubts(judged, difference),
        "difference": difference,
        "comparison_id": compared["id"],
        "chance": _known(judged.chance),
        "audit_id": audit,
    }


def _known(chance: float | None) -> float:
    return 1.0 if chance is None else chance


def _photo(row: Row) -> tuple[str, str, str]:
    return row["bucket"], row["key"], row["etag"]
