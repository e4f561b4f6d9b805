"""What is there of each bin, and how many bins of each kind there are: a running total, never a scan of the bins."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, and_, bindparam, case, select, tuple_, update

from binwatch.records.tables import Bin, BinTotal, Count, Expectation
from binwatch.records.writing import Row, add_to_totals, summed

BinKey = tuple[str, str]
"""Bucket and bin id."""


class PhotoState(StrEnum):
    """What the latest photo of a bin is."""

    COUNTED = "counted"
    FAILED = "failed"
    NONE = "none"


class QuantityState(StrEnum):
    """What the latest expected quantity of a bin is."""

    KNOWN = "known"
    UNREADABLE = "unreadable"
    NONE = "none"


# What _states_now finds of a bin beside its key, and what was last added to the totals.
_OLD = (Bin.photo_state, Bin.quantity_state)
_NOW = (
    case(
        (Bin.count_id.is_(None), PhotoState.NONE.value),
        (Count.reason.is_(None), PhotoState.COUNTED.value),
        else_=PhotoState.FAILED.value,
    ),
    case(
        (Bin.expectation_id.is_(None), QuantityState.NONE.value),
        (Expectation.reason.is_(None), QuantityState.KNOWN.value),
        else_=QuantityState.UNREADABLE.value,
    ),
)


def restate(connection: Connection, keys: Sequence[BinKey], now: datetime) -> None:
    """Move bins that changed from one total to another. The caller holds the locks on their rows."""
    statement = (
        select(Bin.bucket, Bin.bin_id, *_OLD, *_NOW)
        .outerjoin(Count, Count.id == Bin.count_id)
        .outerjoin(Expectation, Expectation.id == Bin.expectation_id)
        .where(tuple_(Bin.bucket, Bin.bin_id).in_(keys))
    )
    found = [(tuple(row[:2]), tuple(row[2:4]), tuple(row[4:])) for row in connection.execute(statement)]
    changed = [(key, old, new) for key, old, new in found if old != new]
    if not changed:
        return
    where = and_(Bin.bucket == bindparam("for_bucket"), Bin.bin_id == bindparam("for_bin"))
    connection.execute(
        update(Bin).where(where),
        [{"for_bucket": key[0], "for_bin": key[1]} | _labels(new) for key, _, new in changed],
    )
    entered = [_labels(new) | {"bins": 1} for _, _, new in changed]
    left = [_labels(old) | {"bins": -1} for _, old, _ in changed if None not in old]
    add_to_totals(connection, BinTotal, summed(("photo_state", "quantity_state"), now, entered + left))


def _labels(states: tuple[str, ...]) -> Row:
    return dict(zip(("photo_state", "quantity_state"), states, strict=True))
