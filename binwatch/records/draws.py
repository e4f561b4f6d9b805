"""Random draws of bins for audits, each with a known likelihood, so that the audits allow estimates for all bins.

Draws are from the bins whose latest photo was counted by the model in use. They are with replacement and independent of
each other (monitor.estimates): a bin may be drawn again. If the drawn photo was already audited blind, the draw is
answered, and another bin is drawn.
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
from binwatch.records.engine import for_writing
from binwatch.records.settle_bins import BinKey
from binwatch.records.tables import Audit, AuditDraw, Bin, Count, Expectation
from binwatch.records.upsert import insert_into

MIN_LIKELIHOOD = 0.5
"""Minimum relative likelihood of drawing a bin, however certain the model is. A lower value would give a few audits so
much weight that intervals miss the truth too often when the model is certain and wrong (benchmarks/audits.py)."""
_IDS_PER_QUERY = (32, 512, 4_096, 4_096, 4_096, 4_096)
"""Number of count ids in each successive query. Most counts are their bin's latest, so one query suffices for a draw
from a million bins."""
_MAX_DRAWS = 20
"""Maximum number of new draws per request, in search of one that is unanswered."""
REASSIGN_AFTER = timedelta(minutes=15)
"""Age at which an unanswered draw is given to the next auditor who asks, who may be the same one. If bins that are hard
to count stayed unanswered, the estimates would be too optimistic."""
_MAX_RECENT_DRAWS = 2_000
"""Number of the latest draws that are searched for unanswered ones."""
LATEST_DRAW_FIRST = (AuditDraw.drawn_at.desc(), AuditDraw.id.desc())
"""Order of draws. Ids alone are not enough, since imported draws are older than their ids suggest."""


class NothingToDraw(BinwatchError):
    """The model in use has counted no bin's latest photo, or all drawn bins are answered or skipped."""


@dataclass(frozen=True, slots=True)
class DrawnBin:
    """A bin to audit."""

    bucket: str
    bin_id: str
    count_id: int
    """Count of the photo to audit."""
    expectation_id: int | None
    """The expected quantity; None if there is none, or it could not be read."""


@dataclass(frozen=True, slots=True)
class CountedBin:
    """A bin that can be drawn, with the model's probabilities for it."""

    bin: DrawnBin
    confidence: float | None
    """Probability of the count; None if the count has no probabilities."""
    chance: float | None
    """Probability of the expected quantity; None if the bin has no expected quantity, or the count no probabilities."""


def photo_key(engine: Engine, drawn: DrawnBin) -> str:
    """Return the key of a drawn bin's photo."""
    with engine.connect() as connection:
        return connection.execute(select(Count.key).where(Count.id == drawn.count_id)).scalar_one()


def draw_likelihood(chance: float | None) -> float:
    """Return the relative likelihood of drawing a bin by doubt, from MIN_LIKELIHOOD to 1.

    `chance` is the model's probability of the expected quantity, or of its own count if there is no quantity; None, for
    a count without probabilities, gives 1.
    """
    return 1.0 if chance is None else max(MIN_LIKELIHOOD, 1 - chance)


def draw(
    engine: Engine,
    auditor: str | None = None,
    *,
    by_doubt: bool = False,
    rng: random.Random | None = None,
    skipped: BinKey | None = None,
) -> DrawnBin:
    """Return a bin to audit: one that was drawn some time ago and not answered, or else a new draw.

    Bins are drawn with equal likelihood or, with `by_doubt`, in proportion to `draw_likelihood`, until one has no exact
    number from a blind audit. Bins for which this `auditor` has seen the numbers are left to other auditors. `skipped`
    is the bin that the auditor was given and did not answer: it is not returned, and its draw stays open. Raises
    NothingToDraw.
    """
    rng = rng or random.SystemRandom()
    with for_writing(engine).begin() as connection:
        if unanswered := _next_unanswered(connection, auditor, skipped):
            return unanswered
        for drawn, likelihood in _new_draws(connection, rng, by_doubt=by_doubt):
            row = asdict(drawn) | {"likelihood": likelihood, "drawn_at": datetime.now(UTC)}
            connection.execute(insert_into(connection, AuditDraw).values(**row))
            numbers = select(first_blind_exact_audit_of(Count.id), _first_number_by(Count.id, auditor))
            is_open = not any(connection.execute(numbers.where(Count.id == drawn.count_id)).one())
            if is_open and (drawn.bucket, drawn.bin_id) != skipped:
                return drawn
    raise NothingToDraw(
        "there is no bin to draw: none has a photo that the model in use has counted, or all that were drawn have been"
        " audited or skipped"
    )


def _next_unanswered(connection: Connection, auditor: str | None, skipped: BinKey | None) -> DrawnBin | None:
    """Return the oldest unanswered draw that is due for reassignment. Bins with a newer photo are ignored.

    Skipping moves on: after a skipped bin of this list comes the next oldest one, so that an auditor who keeps skipping
    sees each of them once, and then new draws. After a skipped new draw, only draws that have become due since it was
    drawn are returned. After any other bin, the list starts from the oldest.
    """
    due_before = datetime.now(UTC) - REASSIGN_AFTER
    recent = select(AuditDraw.__table__).order_by(*LATEST_DRAW_FIRST).limit(_MAX_RECENT_DRAWS).subquery()
    drawn = aliased(AuditDraw, recent)
    is_latest_photo = and_(Bin.bucket == drawn.bucket, Bin.bin_id == drawn.bin_id, Bin.count_id == drawn.count_id)
    statement = (
        select(drawn.bucket, drawn.bin_id, drawn.count_id, drawn.expectation_id, drawn.drawn_at)
        .join(Bin, is_latest_photo)
        .where(
            drawn.drawn_at < due_before,
            first_blind_audit_of(drawn.count_id).is_(None),
            _first_number_by(drawn.count_id, auditor).is_(None),
        )
    )
    due = dict[BinKey, tuple[datetime, DrawnBin]]()
    for row in connection.execute(statement.order_by(drawn.drawn_at, drawn.id)):
        bin_ = DrawnBin(row.bucket, row.bin_id, row.count_id, row.expectation_id)
        due.setdefault((bin_.bucket, bin_.bin_id), (row.drawn_at, bin_))  # the first of several draws of a bin
    keys = list(due)
    if skipped in due:
        keys = keys[keys.index(skipped) + 1 :]
    elif skipped is not None and (skipped_drawn_at := _last_drawn_at(connection, skipped, due_before)):
        keys = [key for key in keys if due[key][0] >= skipped_drawn_at - REASSIGN_AFTER]
    return due[keys[0]][1] if keys else None


def _last_drawn_at(connection: Connection, bin_: BinKey, since: datetime) -> datetime | None:
    """Return when a bin was last drawn; None if it was not drawn since `since`."""
    of_bin = (AuditDraw.bucket == bin_[0], AuditDraw.bin_id == bin_[1])
    return connection.execute(select(func.max(AuditDraw.drawn_at)).where(*of_bin, AuditDraw.drawn_at >= since)).scalar()


def _new_draws(connection: Connection, rng: random.Random, *, by_doubt: bool) -> Iterator[tuple[DrawnBin, float]]:
    """Yield at most _MAX_DRAWS bins, each with its likelihood."""
    drawn = 0
    for candidate in sample_counted_bins(connection, rng, _IDS_PER_QUERY):
        chance = candidate.confidence if candidate.chance is None else candidate.chance
        likelihood = draw_likelihood(chance) if by_doubt else 1.0
        if rng.random() < likelihood:  # rejection sampling: accepted with exactly this likelihood
            yield candidate.bin, likelihood
            drawn += 1
            if drawn == _MAX_DRAWS:
                return


def sample_counted_bins(
    connection: Connection, rng: random.Random, ids_per_query: Sequence[int]
) -> Iterator[CountedBin]:
    """Yield bins that can be drawn, uniformly at random and independent of each other, by the ids of their counts.

    Each query looks up as many random ids as the next entry of `ids_per_query`. The ids start at the first count of the
    model in use, which skips the counts of earlier models. If no id is a bin's latest count, all bins of the model are
    read, once.
    """
    newest_count = select(Count.id, Count.model_version).order_by(Count.id.desc()).limit(1)
    newest = connection.execute(newest_count).one_or_none()
    if newest is None:
        return
    of_model = select(Count.id).where(Count.model_version == newest.model_version, Count.predicted.is_not(None))
    first_id = connection.execute(of_model.order_by(Count.id).limit(1)).scalar_one_or_none()
    if first_id is None:
        return
    counted_bins, any_found = _select_counted_bins(newest.model_version), False
    for n in ids_per_query:
        ids = [rng.randint(first_id, newest.id) for _ in range(n)]
        rows = {row.id: row for row in connection.execute(counted_bins.where(Count.id.in_(set(ids))))}
        for count_id in ids:
            if count_id in rows:
                any_found = True
                yield _counted_bin(rows[count_id])
    if not any_found:
        all_rows = connection.execute(counted_bins).all()
        for _ in range(sum(ids_per_query) if all_rows else 0):
            yield _counted_bin(all_rows[rng.randrange(len(all_rows))])


def _select_counted_bins(model: str) -> Select[*tuple[object, ...]]:
    is_latest_photo = and_(Bin.bucket == Count.bucket, Bin.bin_id == Count.bin_id, Bin.count_id == Count.id)
    return (
        select(Count.id, Count.bucket, Count.bin_id, Count.predicted, Count.probabilities, Expectation.quantity)
        .add_columns(Expectation.id.label("expectation_id"))
        .join(Bin, is_latest_photo)
        .outerjoin(Expectation, Expectation.id == Bin.expectation_id)
        .where(Count.model_version == model, Count.predicted.is_not(None))
    )


def _counted_bin(row: Row[*tuple[object, ...]]) -> CountedBin:
    probabilities, quantity = row.probabilities, row.quantity
    return CountedBin(
        DrawnBin(row.bucket, row.bin_id, row.id, None if quantity is None else row.expectation_id),
        confidence=probabilities[row.predicted] if probabilities else None,
        chance=probabilities[class_of(quantity)] if probabilities and quantity is not None else None,
    )


def first_blind_exact_audit_of(count_id: InstrumentedAttribute[Any]) -> ColumnElement[int | None]:
    """Return the id of the first blind audit with an exact number of a count's photo; NULL if there is none.

    Later audits do not count: only some photos get a second one, for example because the first answer looked wrong, so
    they are not a random sample.
    """
    return first_audit_of(count_id, Audit.blind.is_(True), Audit.answer == AuditAnswer.COUNT)


def first_blind_audit_of(count_id: InstrumentedAttribute[Any]) -> ColumnElement[int | None]:
    """Return the id of the first blind audit of a count's photo, with any answer; NULL if the draw is open."""
    return first_audit_of(count_id, Audit.blind.is_(True))


def _first_number_by(count_id: InstrumentedAttribute[int], auditor: str | None) -> ColumnElement[int | None]:
    """Return the id of the first audit in which a person entered a number, and so was shown the recorded ones."""
    return first_audit_of(count_id, Audit.quantity.is_not(None), Audit.auditor == auditor)


def first_audit_of(count_id: InstrumentedAttribute[Any], *conditions: ColumnElement[bool]) -> ColumnElement[int | None]:
    """Return the id of the first audit of a count's photo that meets the conditions; NULL if there is none.

    An audit belongs to the photo, so it also holds for a newer model's count of the same photo.
    """
    count, audited = aliased(Count), aliased(Count)
    same_photo = and_(audited.bucket == count.bucket, audited.key == count.key, audited.etag == count.etag)
    return (
        select(func.min(Audit.id))
        .select_from(count)
        .join(Audit, and_(Audit.bucket == count.bucket, Audit.bin_id == count.bin_id))
        .join(audited, and_(audited.id == Audit.count_id, same_photo))
        .where(count.id == count_id, *conditions)
        .scalar_subquery()
    )
