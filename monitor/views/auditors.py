"""How often each auditor agrees with others and with known quantities, as the records have it."""

from __future__ import annotations

from pydantic import BaseModel
from sqlalchemy import Connection, Row, and_, select
from sqlalchemy.orm import aliased

from binwatch.counts import class_of
from binwatch.records.audits import AuditAnswer
from binwatch.records.draws import first_audit_of
from binwatch.records.tables import Audit, AuditRepeat, Count, Expectation, KnownAnswer
from monitor.agreement import AuditorAgreement, Photo, Source, agreements

WINDOW = 10_000
"""The last photos that were given twice, and the last audits of photos with a known quantity: as many as are read."""

_IS_KNOWN = and_(Count.bucket == KnownAnswer.bucket, Count.key == KnownAnswer.key, Count.etag == KnownAnswer.etag)


class Auditors(BaseModel):
    """What is known of those who audit by name."""

    items: list[AuditorAgreement]
    """The highest estimated accuracy first."""
    given: int
    """Photos that were given to a second auditor."""
    answered: int
    """Those of them that the second auditor counted; the rest are open, or do not tell."""
    tested: int
    """Blind counts of photos with a known quantity."""


def read_auditors(connection: Connection) -> Auditors:
    """As of now."""
    repeats, known = _repeats(connection), _known(connection)
    pairs = [row for row in repeats if row.second_quantity is not None]
    # Each answer once: a photo may have got a known quantity after it was given twice.
    twice = {(who, row.bucket, row.key, row.etag) for row in pairs for who in (row.auditor, row.second_auditor)}
    photos = [_photo(row) for row in pairs] + [photo for answer, photo in known.items() if answer not in twice]
    return Auditors(items=agreements(photos), given=len(repeats), answered=len(pairs), tested=len(known))


def _repeats(connection: Connection) -> list[Row[*tuple[object, ...]]]:
    """Photos that were given twice, with both answers; repeats that a recount or a sighted audit answered have none."""
    first, second = aliased(Audit), aliased(Audit)
    answer = first_audit_of(
        first.count_id,
        Audit.blind.is_(True),
        Audit.answer == AuditAnswer.COUNT,
        Audit.auditor == AuditRepeat.auditor,
        Audit.id > first.id,
    )
    statement = (
        select(first.auditor, first.quantity, AuditRepeat.auditor.label("second_auditor"))
        .add_columns(second.quantity.label("second_quantity"))
        .add_columns(Count.predicted, Expectation.quantity.label("expected"), KnownAnswer.quantity.label("known"))
        .add_columns(Count.bucket, Count.key, Count.etag)
        .select_from(AuditRepeat)
        .join(first, first.id == AuditRepeat.audit_id)
        .join(Count, Count.id == first.count_id)
        .outerjoin(KnownAnswer, _IS_KNOWN)
        .outerjoin(second, second.id == answer)
        .outerjoin(Expectation, Expectation.id == first.expectation_id)
        .order_by(AuditRepeat.audit_id.desc())
        .limit(WINDOW)
    )
    return list(connection.execute(statement).all())


def _photo(row: Row[*tuple[object, ...]]) -> Photo:
    photo: dict[str | Source, int] = {row.auditor: row.quantity, row.second_auditor: row.second_quantity}
    if row.expected is not None:
        agrees = row.predicted == class_of(row.expected)
        photo[Source.INVENTORY if agrees else Source.DOUBTED_INVENTORY] = row.expected
    if row.known is not None:
        photo[Source.KNOWN] = row.known
    return photo


def _known(connection: Connection) -> dict[tuple[str, str, str, str], Photo]:
    """By auditor and photo (bucket, key, ETag), the first blind count: a later one may follow from it."""
    statement = (
        select(Audit.auditor, Audit.quantity, KnownAnswer.quantity.label("known"))
        .add_columns(KnownAnswer.bucket, KnownAnswer.key, KnownAnswer.etag)
        .select_from(KnownAnswer)
        .join(Audit, and_(Audit.bucket == KnownAnswer.bucket, Audit.bin_id == KnownAnswer.bin_id))
        .join(Count, and_(Count.id == Audit.count_id, _IS_KNOWN))
        .where(Audit.blind.is_(True), Audit.answer == AuditAnswer.COUNT, Audit.auditor.is_not(None))
        .order_by(Audit.id.desc())
        .limit(WINDOW)
    )
    # The newest come first, so that the first answer is what remains.
    first = {(row.auditor, row.bucket, row.key, row.etag): row for row in connection.execute(statement)}
    return {answer: {row.auditor: row.quantity, Source.KNOWN: row.known} for answer, row in first.items()}
