"""Bins drawn at random for an audit, each with a known likelihood: what such audits find is true of all bins.

All bins are those whose latest photo was counted by the model in use. A bin may be drawn again: draws are with
replacement, and each is independent of the others (monitor.estimates). A draw of a photo that was audited blind before
is answered already, and the next bin is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, and_, func, select
from sqlalchemy.orm import InstrumentedAttribute, aliased

from binwatch.counts import class_of
from binwatch.errors import BinwatchError
from binwatch.records.audits import AuditAnswer
from binwatch.records.engine import WRITE
from binwatch.records.settle_bins import BinKey
from binwatch.records.tables import Audit, AuditDraw, Bin, Count, Expectation
from binwatch.records.upsert import insert_into

LEAST = 0.5
"""Likelihood of a bin of which the model is certain. A lower one would give few audits so much weight that intervals
miss the truth too often if the model is certain and wrong (benchmarks/audits.py)."""
_TRIED = (32, 512, 4_096, 4_096, 4_096, 4_096)
"""Numbers of count ids looked up per query. Most are their bins' latest, so a draw from a million bins is one query."""
_AT_ONCE = 20
"""Most draws until one has no answer yet."""
AGAIN = timedelta(minutes=15)
"""Time after which a drawn bin without an answer is given to the next auditor who asks, who may be the same one. If
bins that are hard to count stayed without an answer, the estimates would be too good."""
_OPEN = 2_000
"""Number of the last draws among which those without an answer are searched."""
LAST_DRAWN = (AuditDraw.drawn_at.desc(), AuditDraw.id.desc())
"""Order of draws, the latest first. Not by id only, since imported draws have higher ids."""


class NothingToDraw(BinwatchError):
    """No bin's latest photo was counted by the model in use, or all drawn bins have an answer."""


@dataclass(frozen=True, slots=True)
class DrawnBin:
    """A bin to audit."""

    bucket: str
    bin_id: str
    count_id: int
    """Count of the photo to be audited."""
    expectation_id: int | None
    """The expected quantity; None if there is none, or it could not be read."""


@dataclass(frozen=True, slots=True)
class CountedBin:
    """A bin that may be drawn, and the model's probabilities for it."""

    bin: DrawnBin
    confidence: float | None
    """Probability of the count; None if the count has no probabilities."""
    chance: float | None
    """Probability of the expected quantity; None if there is none."""


def photo_key(engine: Engine, drawn: DrawnBin) -> str:
    """The key of a drawn bin's photo."""
    with engine.connect() as connection:
        return connection.execute(select(Count.key).where(Count.id == drawn.count_id)).scalar_one()


def likelihood(chance: float | None) -> float:
    """How likely a bin is to be drawn by doubt, from LEAST to 1, relative to others.

    `chance` is the model's probability of the expected quantity, or of its own count if there is none.
    """
    return 1.0 if chance is None else max(LEAST, 1 - chance)


def draw(
    engine: Engine,
    auditor: str | None = None,
    *,
    by_doubt: bool = False,
    source: random.Random | None = None,
    skipped: BinKey | None = None,
) -> DrawnBin:
    """A bin that was drawn a while ago and never audited, or else a new draw. Raises NothingToDraw.

    Bins are drawn, all equally likely or by `likelihood`, until one has not been audited blind, nor with the numbers in
    sight by this `auditor`, who cannot be blind to it any more: that one is left to others. The bin `skipped`, which
    the auditor was given and did not answer, is not returned; its draw stays open.
    """
    source = source or random.SystemRandom()
    with engine.execution_options(**{WRITE: True}).begin() as connection:
        if waiting := _waiting(connection, auditor, skipped):
            return waiting
        for drawn, likely in _draws(connection, source, by_doubt=by_doubt):
            row = asdict(drawn) | {"likelihood": likely, "drawn_at": datetime.now(UTC)}
            connection.execute(insert_into(connection, AuditDraw).values(**row))
            answers = select(answer_of(Count.id), _number_by(Count.id, auditor))
            is_open = not any(connection.execute(answers.where(Count.id == drawn.count_id)).one())
            if is_open and (drawn.bucket, drawn.bin_id) != skipped:
                return drawn
    raise NothingToDraw(
        "there is no bin to draw: none has a photo that the model in use has counted, or all that were drawn have been"
        " audited or skipped"
    )


def _waiting(connection: Connection, auditor: str | None, skipped: BinKey | None) -> DrawnBin | None:
    """The draw that waits longest of those that may be forgotten. A bin with a newer photo cannot be answered.

    After `skipped`, the one that waits next longest: whoever skips sees each of them once, and then new draws. After a
    new draw, those that have begun to wait since then; after a bin that is neither, the one that waits longest.
    """
    old = datetime.now(UTC) - AGAIN
    last = select(AuditDraw.__table__).order_by(*LAST_DRAWN).limit(_OPEN).subquery()
    drawn = aliased(AuditDraw, last)
    here = and_(Bin.bucket == drawn.bucket, Bin.bin_id == drawn.bin_id, Bin.count_id == drawn.count_id)
    statement = (
        select(drawn.bucket, drawn.bin_id, drawn.count_id, drawn.expectation_id, drawn.drawn_at)
        .join(Bin, here)
        .where(
            drawn.drawn_at < old,
            any_answer_of(drawn.count_id).is_(None),
            _number_by(drawn.count_id, auditor).is_(None),
        )
    )
    waiting = dict[BinKey, tuple[datetime, DrawnBin]]()
    for row in connection.execute(statement.order_by(drawn.drawn_at, drawn.id)):
        given = DrawnBin(row.bucket, row.bin_id, row.count_id, row.expectation_id)
        waiting.setdefault((given.bucket, given.bin_id), (row.drawn_at, given))  # the first of several draws of a bin
    places = list(waiting)
    if skipped in waiting:
        places = places[places.index(skipped) + 1 :]
    elif skipped is not None and (new := _new_draw(connection, skipped, old)):
        places = [place for place in places if waiting[place][0] >= new - AGAIN]
    return waiting[places[0]][1] if places else None


def _new_draw(connection: Connection, bin_: BinKey, after: datetime) -> datetime | None:
    """When a bin was last drawn; None if that was not `after`."""
    of_bin = (AuditDraw.bucket == bin_[0], AuditDraw.bin_id == bin_[1])
    return connection.execute(select(func.max(AuditDraw.drawn_at)).where(*of_bin, AuditDraw.drawn_at >= after)).scalar()


def _draws(connection: Connection, source: random.Random, *, by_doubt: bool) -> Iterator[tuple[DrawnBin, float]]:
    """At most _AT_ONCE of them, without end if there were no such limit."""
    drawn = 0
    for one in counted_bins(connection, source, _TRIED):
        likely = likelihood(one.confidence if one.chance is None else one.chance) if by_doubt else 1.0
        if source.random() < likely:  # rejection sampling: kept with exactly this likelihood
            yield one.bin, likely
            drawn += 1
            if drawn == _AT_ONCE:
                return


def counted_bins(connection: Connection, source: random.Random, tried: Sequence[int]) -> Iterator[CountedBin]:
    """Bins that may be drawn, each with the same probability and independent of the others, by the ids of their counts.

    `tried` is the number of random ids in each query, from the model's first count on, which skips the counts of
    earlier models. If no id is a bin's latest count, all bins of the model are read once.
    """
    newest = select(Count.id, Count.model_version).order_by(Count.id.desc()).limit(1)
    last = connection.execute(newest).one_or_none()
    if last is None:
        return
    of_model = select(Count.id).where(Count.model_version == last.model_version, Count.predicted.is_not(None))
    first = connection.execute(of_model.order_by(Count.id).limit(1)).scalar_one_or_none()
    if first is None:
        return
    frame, found = _frame(last.model_version), False
    for number in tried:
        ids = [source.randint(first, last.id) for _ in range(number)]
        rows = {row.id: row for row in connection.execute(frame.where(Count.id.in_(set(ids))))}
        for one in ids:
            if one in rows:
                found = True
                yield _counted(rows[one])
    if not found:
        every = connection.execute(frame).all()
        for _ in range(sum(tried) if every else 0):
            yield _counted(every[source.randrange(len(every))])


def _frame(model: str) -> Select[*tuple[object, ...]]:
    here = and_(Bin.bucket == Count.bucket, Bin.bin_id == Count.bin_id, Bin.count_id == Count.id)
    return (
        select(Count.id, Count.bucket, Count.bin_id, Count.predicted, Count.probabilities, Expectation.quantity)
        .add_columns(Expectation.id.label("expectation_id"))
        .join(Bin, here)
        .outerjoin(Expectation, Expectation.id == Bin.expectation_id)
        .where(Count.model_version == model, Count.predicted.is_not(None))
    )


def _counted(row: Row[*tuple[object, ...]]) -> CountedBin:
    probabilities, quantity = row.probabilities, row.quantity
    return CountedBin(
        DrawnBin(row.bucket, row.bin_id, row.id, None if quantity is None else row.expectation_id),
        confidence=probabilities[row.predicted] if probabilities else None,
        chance=probabilities[class_of(quantity)] if probabilities and quantity is not None else None,
    )


def answer_of(count_id: InstrumentedAttribute[Any]) -> ColumnElement[int | None]:
    """Id of the first blind audit with a number of a count's photo; NULL if there is none.

    Not a later one: only some photos get a second audit, for example because the first answer looked wrong, so they are
    not a random sample.
    """
    return audit_of(count_id, Audit.blind.is_(True), Audit.answer == AuditAnswer.COUNT)


def any_answer_of(count_id: InstrumentedAttribute[Any]) -> ColumnElement[int | None]:
    """Id of the first blind audit of a count's photo, with any answer; NULL if the draw is open."""
    return audit_of(count_id, Audit.blind.is_(True))


def _number_by(count_id: InstrumentedAttribute[int], auditor: str | None) -> ColumnElement[int | None]:
    """Id of an audit by a person that has a number, and so showed both others."""
    return audit_of(count_id, Audit.quantity.is_not(None), Audit.auditor == auditor)


def audit_of(count_id: InstrumentedAttribute[Any], *conditions: ColumnElement[bool]) -> ColumnElement[int | None]:
    """Id of the first audit of a count's photo that meets the conditions; NULL if there is none.

    An audit belongs to the photo, so it also holds for a newer model's count of it.
    """
    drawn, judged = aliased(Count), aliased(Count)
    same_photo = and_(judged.bucket == drawn.bucket, judged.key == drawn.key, judged.etag == drawn.etag)
    return (
        select(func.min(Audit.id))
        .select_from(drawn)
        .join(Audit, and_(Audit.bucket == drawn.bucket, Audit.bin_id == drawn.bin_id))
        .join(judged, and_(judged.id == Audit.count_id, same_photo))
        .where(drawn.id == count_id, *conditions)
        .scalar_subquery()
    )
