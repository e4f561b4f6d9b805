"""Tests of auditors: photos that a second auditor counts again, and photos whose quantity is known.

Neither is a draw (binwatch.records.draws). A draw is answered by the photo's first blind audit, so tests do not change
the estimates that are made from draws.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, and_, func, select
from sqlalchemy.orm import aliased

from binwatch.records.audits import AuditAnswer
from binwatch.records.draws import REASSIGN_AFTER, DrawnBin, draw, first_audit_of, first_blind_exact_audit_of
from binwatch.records.engine import for_writing
from binwatch.records.settle_bins import BinKey
from binwatch.records.tables import Audit, AuditRepeat, Bin, Count, KnownAnswer
from binwatch.records.upsert import insert_into

_MAX_CANDIDATES = 2_000
"""Maximum number of the latest blind audits, and of known answers, from which a test is chosen."""

_first_audit = aliased(Audit)
_audited_count = aliased(Count)
_latest_count = aliased(Count)
_HAS_KNOWN_ANSWER = and_(
    KnownAnswer.bucket == _latest_count.bucket,
    KnownAnswer.key == _latest_count.key,
    KnownAnswer.etag == _latest_count.etag,
)
_IS_LATEST_PHOTO = and_(
    _latest_count.id == Bin.count_id,
    _latest_count.bucket == _audited_count.bucket,
    _latest_count.key == _audited_count.key,
    _latest_count.etag == _audited_count.etag,
)


def next_bin_to_audit(
    engine: Engine,
    auditor: str | None,
    test_probability: float,
    *,
    by_doubt: bool = False,
    rng: random.Random | None = None,
    skipped: BinKey | None = None,
) -> DrawnBin:
    """Return the next bin for a blind audit: a test of the auditor with `test_probability`, or else a draw.

    A test is a photo that somebody else has audited blind, or one whose quantity is known, with equal probability as
    long as there are both. This auditor has not audited it before. An auditor without a name is never tested. `skipped`
    is the bin that the auditor was given and did not answer: it is not returned. Raises NothingToDraw.
    """
    rng = rng or random.SystemRandom()
    if auditor is not None and rng.random() < test_probability:
        with for_writing(engine).begin() as connection:
            choosers = [_choose_repeat, _choose_known_answer]
            rng.shuffle(choosers)
            for choose in choosers:
                test = choose(connection, auditor, rng)
                if test and (test.bucket, test.bin_id) != skipped:
                    return test
    return draw(engine, auditor, by_doubt=by_doubt, rng=rng, skipped=skipped)


def _choose_repeat(connection: Connection, auditor: str, rng: random.Random) -> DrawnBin | None:
    """Choose a photo that this auditor was given and did not answer, or else one that has no second auditor yet."""
    candidates = _audited_by_others(auditor).order_by(_first_audit.id)
    given = and_(AuditRepeat.auditor == auditor, AuditRepeat.given_at < datetime.now(UTC) - REASSIGN_AFTER)
    unanswered = candidates.where(_first_audit.id.in_(select(AuditRepeat.audit_id).where(given)))
    if repeat := connection.execute(unanswered.limit(1)).one_or_none():
        return _drawn_bin(repeat)
    blind_counts = select(Audit.id).where(Audit.blind.is_(True), Audit.answer == AuditAnswer.COUNT)
    latest = blind_counts.order_by(Audit.id.desc()).limit(_MAX_CANDIDATES).subquery()
    candidates = candidates.where(
        _first_audit.id >= select(func.min(latest.c.id)).scalar_subquery(),
        _first_audit.id.not_in(select(AuditRepeat.audit_id)),
    )
    rows = connection.execute(candidates).all()
    if not rows:
        return None
    chosen = rng.choice(rows)
    row = {"audit_id": chosen.audit_id, "auditor": auditor, "given_at": datetime.now(UTC)}
    # Another auditor may have been given the same photo in the meantime.
    insert = insert_into(connection, AuditRepeat).values(**row).on_conflict_do_nothing()
    inserted = connection.execute(insert.returning(AuditRepeat.audit_id)).one_or_none()
    return _drawn_bin(chosen) if inserted else None


def _choose_known_answer(connection: Connection, auditor: str, rng: random.Random) -> DrawnBin | None:
    """Choose a photo whose quantity is known."""
    statement = (
        select(Bin.bucket, Bin.bin_id, Bin.count_id)
        .join(_latest_count, _latest_count.id == Bin.count_id)
        .join(KnownAnswer, _HAS_KNOWN_ANSWER)
        .where(_latest_count.predicted.is_not(None), _not_audited_by(auditor))
        .limit(_MAX_CANDIDATES)
    )
    rows = connection.execute(statement).all()
    return _drawn_bin(rng.choice(rows)) if rows else None


def _audited_by_others(auditor: str) -> Select[*tuple[object, ...]]:
    """Select the first blind audit with an exact number of each bin's latest photo, if another person made it.

    Photos with a known answer, and photos that this auditor has audited, are left out.
    """
    return (
        select(_first_audit.id.label("audit_id"), Bin.bucket, Bin.bin_id, Bin.count_id)
        .join(_audited_count, _audited_count.id == _first_audit.count_id)
        .join(Bin, and_(Bin.bucket == _first_audit.bucket, Bin.bin_id == _first_audit.bin_id))
        .join(_latest_count, _IS_LATEST_PHOTO)
        .outerjoin(KnownAnswer, _HAS_KNOWN_ANSWER)
        .where(
            _first_audit.auditor != auditor,
            _first_audit.id == first_blind_exact_audit_of(_first_audit.count_id),
            _latest_count.predicted.is_not(None),
            KnownAnswer.key.is_(None),
            _not_audited_by(auditor),
        )
    )


def _not_audited_by(auditor: str) -> ColumnElement[bool]:
    return first_audit_of(_latest_count.id, Audit.auditor == auditor).is_(None)


def _drawn_bin(row: Row[*tuple[object, ...]]) -> DrawnBin:
    return DrawnBin(row.bucket, row.bin_id, row.count_id, None)


def bins_with_count(connection: Connection, bucket: str) -> list[str]:
    """Return the ids of the bins whose latest photo was counted: only these can have a known answer."""
    statement = select(Bin.bin_id).join(Count, Count.id == Bin.count_id)
    return list(connection.execute(statement.where(Bin.bucket == bucket, Count.predicted.is_not(None))).scalars())


def add_known_answers(engine: Engine, bucket: str, quantities: Mapping[str, int], source: str) -> int:
    """Record true quantities of the bins' latest photos. Returns the number of new or changed ones.

    A known answer belongs to a photo, not to later photos of the bin. `source` is the name of the imported file.
    """
    with for_writing(engine).begin() as connection:
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
        updated = {name: statement.excluded[name] for name in ("quantity", "source", "loaded_at")}
        statement = statement.on_conflict_do_update(
            index_elements=("bucket", "key", "etag"), set_=updated, where=KnownAnswer.quantity != updated["quantity"]
        )
        return len(connection.execute(statement.returning(KnownAnswer.key), rows).all())
