"""Tests of auditors: photos that a second auditor gets, and photos whose quantity is known.

Neither is a draw (binwatch.records.draws), whose answer is the first blind one: estimates from draws stay as they are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, and_, func, select
from sqlalchemy.orm import aliased

from binwatch.records.audits import AuditAnswer
from binwatch.records.draws import AGAIN, DrawnBin, answer_of, audit_of, draw
from binwatch.records.engine import WRITE
from binwatch.records.settle_bins import BinKey
from binwatch.records.tables import Audit, AuditRepeat, Bin, Count, KnownAnswer
from binwatch.records.upsert import insert_into

_LAST = 2_000
"""Number of the last blind answers, and of known answers, from which a test is chosen."""

_first = aliased(Audit)
_judged = aliased(Count)
_now = aliased(Count)
_IS_KNOWN = and_(KnownAnswer.bucket == _now.bucket, KnownAnswer.key == _now.key, KnownAnswer.etag == _now.etag)
_SHOWS_PHOTO = and_(
    _now.id == Bin.count_id, _now.bucket == _judged.bucket, _now.key == _judged.key, _now.etag == _judged.etag
)


def next_bin(
    engine: Engine,
    auditor: str | None,
    repeats: float,
    *,
    by_doubt: bool = False,
    source: random.Random | None = None,
    skipped: BinKey | None = None,
) -> DrawnBin:
    """The next bin to be audited blind: with the probability `repeats` one to test the auditor with, or else a draw.

    Such a bin shows a photo that somebody else has audited blind, or whose quantity is known, half of them each while
    there are both; the auditor has not answered it. Nobody without a name is tested. Never the bin `skipped`, which the
    auditor was given and did not answer. Raises NothingToDraw.
    """
    source = source or random.SystemRandom()
    if auditor is not None and source.random() < repeats:
        with engine.execution_options(**{WRITE: True}).begin() as connection:
            ways = [_of_others, _known]
            source.shuffle(ways)
            for way in ways:
                found = way(connection, auditor, source)
                if found and (found.bucket, found.bin_id) != skipped:
                    return found
    return draw(engine, auditor, by_doubt=by_doubt, source=source, skipped=skipped)


def _of_others(connection: Connection, auditor: str, source: random.Random) -> DrawnBin | None:
    """A photo that this auditor was given and has not answered, or else one that nobody was given a second time."""
    candidates = _answered_by_others(auditor).order_by(_first.id)
    mine = and_(AuditRepeat.auditor == auditor, AuditRepeat.given_at < datetime.now(UTC) - AGAIN)
    left_out = candidates.where(_first.id.in_(select(AuditRepeat.audit_id).where(mine)))
    if again := connection.execute(left_out.limit(1)).one_or_none():
        return _bin(again)
    counts = select(Audit.id).where(Audit.blind.is_(True), Audit.answer == AuditAnswer.COUNT)
    last = counts.order_by(Audit.id.desc()).limit(_LAST).subquery()
    candidates = candidates.where(
        _first.id >= select(func.min(last.c.id)).scalar_subquery(), _first.id.not_in(select(AuditRepeat.audit_id))
    )
    found = connection.execute(candidates).all()
    if not found:
        return None
    chosen = source.choice(found)
    row = {"audit_id": chosen.audit_id, "auditor": auditor, "given_at": datetime.now(UTC)}
    # Somebody else may be given it at this moment.
    insert = insert_into(connection, AuditRepeat).values(**row).on_conflict_do_nothing()
    given = connection.execute(insert.returning(AuditRepeat.audit_id)).one_or_none()
    return _bin(chosen) if given else None


def _bin(row: Row[*tuple[object, ...]]) -> DrawnBin:
    return DrawnBin(row.bucket, row.bin_id, row.count_id, None)


def _answered_by_others(auditor: str) -> Select[*tuple[object, ...]]:
    """First blind audits, by other persons, of the bins' latest photos."""
    return (
        select(_first.id.label("audit_id"), Bin.bucket, Bin.bin_id, Bin.count_id)
        .join(_judged, _judged.id == _first.count_id)
        .join(Bin, and_(Bin.bucket == _first.bucket, Bin.bin_id == _first.bin_id))
        .join(_now, _SHOWS_PHOTO)
        .outerjoin(KnownAnswer, _IS_KNOWN)
        .where(
            _first.auditor != auditor,
            _first.id == answer_of(_first.count_id),
            _now.predicted.is_not(None),
            KnownAnswer.key.is_(None),
            _not_answered(auditor),
        )
    )


def _not_answered(auditor: str) -> ColumnElement[bool]:
    return audit_of(_now.id, Audit.auditor == auditor).is_(None)


def _known(connection: Connection, auditor: str, source: random.Random) -> DrawnBin | None:
    statement = (
        select(Bin.bucket, Bin.bin_id, Bin.count_id)
        .join(_now, _now.id == Bin.count_id)
        .join(KnownAnswer, _IS_KNOWN)
        .where(_now.predicted.is_not(None), _not_answered(auditor))
        .limit(_LAST)
    )
    found = connection.execute(statement).all()
    return _bin(source.choice(found)) if found else None


def bins_with_count(connection: Connection, bucket: str) -> list[str]:
    """Ids of the bins whose latest photo was counted, which can have a known answer."""
    statement = select(Bin.bin_id).join(Count, Count.id == Bin.count_id)
    return list(connection.execute(statement.where(Bin.bucket == bucket, Count.predicted.is_not(None))).scalars())


def add_known_answers(engine: Engine, bucket: str, quantities: Mapping[str, int], source: str) -> int:
    """Record true quantities of the bins' latest photos; `source` is the file's name. Returns the number of new ones.

    A known answer belongs to a photo, not to later photos of the bin.
    """
    with engine.execution_options(**{WRITE: True}).begin() as connection:
        photos = select(Bin.bin_id, Count.key, Count.etag).join(Count, Count.id == Bin.count_id)
        photos = photos.where(Bin.bucket == bucket, Bin.bin_id.in_(list(quantities)), Count.predicted.is_not(None))
        now = datetime.now(UTC)
        rows = [
            {"bucket": bucket, "bin_id": bin_id, "key": key, "etag": etag}
            | {"quantity": quantities[bin_id], "source": source, "loaded_at": now}
            for bin_id, key, etag in sorted(tuple(row) for row in connection.execute(photos))
        ]
        if not rows:
            return 0
        statement = insert_into(connection, KnownAnswer)
        new = {name: statement.excluded[name] for name in ("quantity", "source", "loaded_at")}
        statement = statement.on_conflict_do_update(
            index_elements=("bucket", "key", "etag"), set_=new, where=KnownAnswer.quantity != new["quantity"]
        )
        return len(connection.execute(statement.returning(KnownAnswer.key), rows).all())
