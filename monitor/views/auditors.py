"""Agreement of each auditor with other auditors and with known quantities, read from the records."""

from __future__ import annotations

from pydantic import BaseModel
from sqlalchemy import Connection, Row, and_, select
from sqlalchemy.orm import aliased

from binwatch.counts import class_of
from binwatch.records.audits import AuditAnswer
from binwatch.records.draws import first_audit_of
from binwatch.records.tables import Audit, AuditRepeat, Count, Expectation, KnownAnswer
from monitor.agreement import AuditorAgreement, Photo, Source, agreements

MAX_ROWS = 10_000
"""Maximum number of rows read: the latest photos given to two auditors, and the latest audits of known quantities."""

_IS_KNOWN = and_(Count.bucket == KnownAnswer.bucket, Count.key == KnownAnswer.key, Count.etag == KnownAnswer.etag)


class Auditors(BaseModel):
    """Agreement figures of all auditors with a name."""

    items: list[AuditorAgreement]
    """One item per auditor, sorted by estimated accuracy, highest first."""
    given: int
    """Number of photos given to a second auditor."""
    answered: int
    """Number of these photos that the second auditor counted. The others are unanswered, or have no usable answer."""
    tested: int
    """Number of blind counts of photos with a known quantity."""


def read_auditors(connection: Connection) -> Auditors:
    """Return the current agreement figures of all auditors."""
    repeats, tests = _read_repeats(connection), _read_tests(connection)
    pairs = [row for row in repeats if row.second_quantity is not None]
    # Count each answer once: the quantity of a photo may have become known after it was given to two auditors.
    paired = {(name, row.bucket, row.key, row.etag) for row in pairs for name in (row.auditor, row.second_auditor)}
    photos = [_photo(row) for row in pairs] + [photo for answer, photo in tests.items() if answer not in paired]
    return Auditors(items=agreements(photos), given=len(repeats), answered=len(pairs), tested=len(tests))


def _read_repeats(connection: Connection) -> list[Row[*tuple[object, ...]]]:
    """Return the photos given to two auditors, with both answers.

    The second answer is None if its auditor has not counted the photo blind since the first.
    """
    first, second = aliased(Audit), aliased(Audit)
    second_id = first_audit_of(
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
        .outerjoin(second, second.id == second_id)
        .outerjoin(Expectation, Expectation.id == first.expectation_id)
        .order_by(AuditRepeat.audit_id.desc())
        .limit(MAX_ROWS)
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


def _read_tests(connection: Connection) -> dict[tuple[str, str, str, str], Photo]:
    """Return the blind counts of photos with a known quantity, by (auditor, bucket, key, ETag).

    Only an auditor's first count of a photo is used, since a later one may depend on it.
    """
    statement = (
        select(Audit.auditor, Audit.quantity, KnownAnswer.quantity.label("known"))
        .add_columns(KnownAnswer.bucket, KnownAnswer.key, KnownAnswer.etag)
        .select_from(KnownAnswer)
        .join(Audit, and_(Audit.bucket == KnownAnswer.bucket, Audit.bin_id == KnownAnswer.bin_id))
        .join(Count, and_(Count.id == Audit.count_id, _IS_KNOWN))
        .where(Audit.blind.is_(True), Audit.answer == AuditAnswer.COUNT, Audit.auditor.is_not(None))
        .order_by(Audit.id.desc())
        .limit(MAX_ROWS)
    )
    # Rows come newest first, so the oldest row of each key is the one that remains.
    first_counts = {(row.auditor, row.bucket, row.key, row.etag): row for row in connection.execute(statement)}
    return {answer: {row.auditor: row.quantity, Source.KNOWN: row.known} for answer, row in first_counts.items()}
