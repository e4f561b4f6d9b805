"""The tables. `counts`, `expectations`, `comparisons`, `audits`, `audit_draws`, `audit_repeats`
and `variance_trail` are ledgers that only grow.

`bins` says which count and which expected quantity of a bin are the latest, and `current_comparisons` how the two
compare. `*_totals` and `*_hours` are running sums, kept in the same transaction as the ledgers, so that a scrape or a
page costs the same with a thousand records or ten million.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON, TypeDecorator

from binwatch.moments import in_utc


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite forgets time zones; this puts UTC back and refuses naive times on the way in."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return in_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_Bytes = bytes
"""`bytes`, by a name that still means the type inside `Count`, which has a column `bytes`."""

# SQLite numbers rows by itself only in a column that is exactly INTEGER.
BigId = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy reads it from the class)
        datetime: UtcDateTime(),
        list[int]: JSON(none_as_null=True),
        list[float]: JSON(none_as_null=True),
        list[dict[str, Any]]: JSON(none_as_null=True),
        dict[str, Any]: JSON(none_as_null=True),
        str: Text(),
        float: Double(),
        bytes: LargeBinary(),
    }


# Without parameters, or SQLite would not see that the index has what monitor.views.lists asks for.
_FAILED = text("reason IS NOT NULL")
_COUNTED = text("predicted IS NOT NULL")
_IN_SLICE = text("slice_id IS NOT NULL")
WITHOUT_QUANTITY = text("photo_state <> 'none' AND quantity_state <> 'known'")
WITHOUT_PHOTO = text("photo_state = 'none' AND quantity_state = 'known'")


class Count(Base):
    """One photo, counted (or not) by one model: what the model said, or why there is no count."""

    __tablename__ = "counts"
    __table_args__ = (
        UniqueConstraint("bucket", "key", "etag", "model_version", name="uq_counts_photo_model"),
        Index("ix_counts_bin", "bucket", "bin_id"),
        Index("ix_counts_recorded_at", "recorded_at"),
        Index("ix_counts_failed", "id", postgresql_where=_FAILED, sqlite_where=_FAILED),
        # For draws after a change of model, when nearly all counts are another's.
        Index("ix_counts_model", "model_version", "id", postgresql_where=_COUNTED, sqlite_where=_COUNTED),
        Index("ix_counts_slice", "slice_id", "id", postgresql_where=_IN_SLICE, sqlite_where=_IN_SLICE),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    bucket: Mapped[str]
    key: Mapped[str]
    etag: Mapped[str]
    """ETag as fetched, or as listed or announced if it could not be; empty if not known."""
    version_id: Mapped[str | None]
    bin_id: Mapped[str]
    slice_id: Mapped[int | None]
    """Of `slices`, by the rule that held when it was recorded; NULL if there was none."""
    model_version: Mapped[str] = mapped_column(String(100))
    precision: Mapped[str] = mapped_column(String(10))
    provider: Mapped[str] = mapped_column(String(60))
    reason: Mapped[str | None] = mapped_column(String(40))
    """Why the photo was not counted (binwatch.errors.Reason); NULL if it was."""
    detail: Mapped[str | None]
    predicted: Mapped[int | None] = mapped_column(SmallInteger)
    """Index of the class; 6 is "more than 5"."""
    probabilities: Mapped[list[float] | None]
    """Of the classes."""
    distribution: Mapped[list[float] | None]
    """Of 0, 1, … items and of more; NULL of a model that has the classes alone."""
    width: Mapped[int | None]
    height: Mapped[int | None]
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    brightness: Mapped[float | None]
    """This and the next two are binwatch.photo_stats.PhotoStats."""
    contrast: Mapped[float | None]
    sharpness: Mapped[float | None]
    embedding: Mapped[_Bytes | None]
    """What the model saw, for drift: float16, little-endian (binwatch.embedding)."""
    modified_at: Mapped[datetime]
    """When S3 last stored this very photo (or announced it, if it could not be fetched)."""
    recorded_at: Mapped[datetime]
    tried_at: Mapped[datetime | None]
    """When it was last tried in vain to fetch this once more; NULL if it was tried once or could be fetched."""


class Expectation(Base):
    """What the inventory says is in a bin at one time, or why its metadata file says nothing."""

    __tablename__ = "expectations"
    __table_args__ = (
        UniqueConstraint("bucket", "bin_id", "source", "etag", "modified_at", name="uq_expectations_upload"),
        Index("ix_expectations_recorded_at", "recorded_at"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    bucket: Mapped[str]
    bin_id: Mapped[str]
    source: Mapped[str]
    """Key of the metadata file, or name of the imported file."""
    etag: Mapped[str]
    quantity: Mapped[int | None]
    reason: Mapped[str | None] = mapped_column(String(40))
    """Why there is no quantity (binwatch.errors.MetadataReason); NULL if there is one."""
    detail: Mapped[str | None]
    contents: Mapped[list[dict[str, Any]] | None]
    """What the quantity is made up of (binwatch.metadata.Article); NULL if the source does not say."""
    modified_at: Mapped[datetime]
    recorded_at: Mapped[datetime]
    tried_at: Mapped[datetime | None]
    """When it was last tried in vain to fetch this once more; NULL if it was tried once or could be fetched."""


class Bin(Base):
    """The latest photo and the latest expected quantity of a bin, by the time that S3 stored them."""

    __tablename__ = "bins"
    __table_args__ = (
        Index(
            "ix_bins_without_quantity",
            "bin_id",
            "bucket",
            postgresql_where=WITHOUT_QUANTITY,
            sqlite_where=WITHOUT_QUANTITY,
        ),
        Index("ix_bins_without_photo", "bin_id", "bucket", postgresql_where=WITHOUT_PHOTO, sqlite_where=WITHOUT_PHOTO),
    )

    bucket: Mapped[str] = mapped_column(primary_key=True)
    bin_id: Mapped[str] = mapped_column(primary_key=True)
    count_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("counts.id"))
    photo_at: Mapped[datetime | None]
    expectation_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("expectations.id"))
    expected_at: Mapped[datetime | None]
    photo_state: Mapped[str | None] = mapped_column(String(10))
    """What the latest photo is (binwatch.records.settlement.PhotoState), as it was last added to `bin_totals`."""
    quantity_state: Mapped[str | None] = mapped_column(String(10))
    """What the latest quantity is (binwatch.records.settlement.QuantityState), as it was last added to `bin_totals`."""


class Comparison(Base):
    """A count beside the expected quantity of the same bin. A corrected quantity appends another.

    The same quantity said once more, by the same file or by another, appends none.
    """

    __tablename__ = "comparisons"
    __table_args__ = (
        UniqueConstraint("count_id", "expectation_id", name="uq_comparisons_pair"),
        Index("ix_comparisons_compared_at", "compared_at"),
        Index("ix_comparisons_bin", "bucket", "bin_id"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    bucket: Mapped[str]
    bin_id: Mapped[str]
    count_id: Mapped[int] = mapped_column(BigId, ForeignKey("counts.id"))
    expectation_id: Mapped[int] = mapped_column(BigId, ForeignKey("expectations.id"))
    """The first that gave this quantity while the bin showed this photo."""
    model_version: Mapped[str] = mapped_column(String(100))
    predicted: Mapped[int] = mapped_column(SmallInteger)
    expected: Mapped[int]
    error: Mapped[int]
    """predicted − expected in items, both capped at "more than 5" (6)."""
    outcome: Mapped[str] = mapped_column(String(10))
    chance: Mapped[float | None]
    """Probability that the model gave to the expected quantity's class; NULL if the count has no probabilities."""
    p_value: Mapped[float | None]
    """How odd the photo is for a bin that holds what is expected (binwatch.conformal), by the first calibration that
    there was of its model; NULL without one. `current_comparisons` has that of the present calibration."""
    p_missing: Mapped[float | None]
    """How much it looks as if items were missing, and NULL where `p_value` is."""
    p_surplus: Mapped[float | None]
    """How much it looks as if there were a surplus."""
    compared_at: Mapped[datetime]


# Ordered byte by byte, as SQLite does by itself, so that an index on it finds what begins with a prefix.
BytewiseText = Text(collation="C").with_variant(Text(), "sqlite")


_AUDITED = text("audit_id IS NOT NULL")
_WRONG = text("difference <> 0")
_MISSING = text("difference < 0")
_SURPLUS = text("difference > 0")


class CurrentComparison(Base):
    """How each bin's latest photo and latest expected quantity compare; no row for a bin that lacks one of them.

    Everything that discrepancies are filtered and ranked by is in this row. The ranking is `doubt`, then `chance`, then
    `comparison_id`; of bins that differ in one direction, `doubt_one_sided` takes the place of `doubt`.
    """

    __tablename__ = "current_comparisons"
    __table_args__ = (
        Index("ix_current_rank", "doubt", "chance", "comparison_id"),
        # Those that differ, alone: who looks for the next one must not walk past all that agree. With the audit, so
        # that PostgreSQL counts from the index alone.
        Index(
            "ix_current_wrong",
            "doubt",
            "chance",
            "comparison_id",
            postgresql_include=["audit_id"],
            postgresql_where=_WRONG,
            sqlite_where=_WRONG,
        ),
        # The same for each direction.
        *(
            Index(
                f"ix_current_{name}",
                "doubt_one_sided",
                "chance",
                "comparison_id",
                postgresql_include=["audit_id"],
                postgresql_where=where,
                sqlite_where=where,
            )
            for name, where in (("missing", _MISSING), ("surplus", _SURPLUS))
        ),
        Index("ix_current_model", "model_version", "doubt", "chance", "comparison_id"),
        # Those that an earlier calibration judged, or none.
        Index("ix_current_calibration", "model_version", "calibration", "comparison_id"),
        # For what is rare, or far down in the ranking: large differences, and bins that agree.
        Index("ix_current_difference", "difference", "doubt", "chance", "comparison_id"),
        Index("ix_current_key", "key"),
        Index("ix_current_photo_at", "photo_at"),
        Index("ix_current_audit", "audit_id", postgresql_where=_AUDITED, sqlite_where=_AUDITED),
    )

    # The bin first, so that bins are found by how their ids begin.
    bin_id: Mapped[str] = mapped_column(BytewiseText, primary_key=True)
    bucket: Mapped[str] = mapped_column(primary_key=True)
    comparison_id: Mapped[int] = mapped_column(BigId, ForeignKey("comparisons.id"))
    count_id: Mapped[int] = mapped_column(BigId, ForeignKey("counts.id"))
    expectation_id: Mapped[int] = mapped_column(BigId, ForeignKey("expectations.id"))
    model_version: Mapped[str] = mapped_column(String(100))
    key: Mapped[str] = mapped_column(BytewiseText)
    photo_at: Mapped[datetime]
    predicted: Mapped[int] = mapped_column(SmallInteger)
    expected: Mapped[int]
    difference: Mapped[int]
    """predicted − expected in items, without the cap of `comparisons.error`, and beyond 5 by the whole distribution
    (binwatch.counts.difference_of)."""
    chance: Mapped[float]
    """As in `comparisons`, but 1 where it is unknown: such a bin is ranked last."""
    p_value: Mapped[float | None]
    p_missing: Mapped[float | None]
    p_surplus: Mapped[float | None]
    doubt: Mapped[float]
    """`p_value`; where there is none, 1 + `chance`, so that these come after all that have one; last, 3, are bins of
    whose expected quantity the model says nothing."""
    doubt_one_sided: Mapped[float]
    """The same by `p_missing` if `difference` is negative, else by `p_surplus`."""
    calibration: Mapped[int]
    """The calibration that it was judged by, as `models.calibrations` had it; 0 if there was none."""
    audit_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("audits.id"))
    """The last audit of this very photo; NULL if nobody has looked."""
    slice_id: Mapped[int | None]
    """Of the count."""


class RankTotal(Base):
    """Rows of `current_comparisons` by whether they have a p-value. As `bin_totals`, it falls when a bin changes."""

    __tablename__ = "rank_totals"

    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    """binwatch.records.settlement.Ranked."""
    bins: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class Model(Base):
    """A model that a worker took into use, and what turns its probabilities into p-values."""

    __tablename__ = "models"

    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    first_at: Mapped[datetime]
    calibration: Mapped[dict[str, Any] | None]
    """binwatch.conformal.Calibration; NULL if its bundle has none."""
    calibrated_at: Mapped[datetime | None]
    """When `calibration` last changed."""
    calibrations: Mapped[int]
    """How often it changed: the number of the present one, 0 if there is none."""


class PhotoTotal(Base):
    """Photos by model and reason ('' for counted)."""

    __tablename__ = "photo_totals"

    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    reason: Mapped[str] = mapped_column(String(40), primary_key=True)
    photos: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class ExpectationTotal(Base):
    """Expected quantities by reason ('' for those that were read)."""

    __tablename__ = "expectation_totals"

    reason: Mapped[str] = mapped_column(String(40), primary_key=True)
    expectations: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class ConfusionTotal(Base):
    """How often a model predicted a class of photos whose true class is another, or the same.

    Those by audits fall, as `bin_totals` does: of each count, and of each expected quantity on each photo, the last
    answer holds alone, if it is a number, and what it corrects leaves its row. Blind audits and others have rows of
    their own, and correct their own kind alone. Those by the inventory only grow.
    """

    __tablename__ = "confusion_totals"

    reference: Mapped[str] = mapped_column(String(10), primary_key=True)
    """binwatch.confusion.TruthSource: who states the true class."""
    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    """'' where an audit judges the inventory: then the expected quantity's class is the predicted one."""
    true_class: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    predicted_class: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    comparisons: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class Slice(Base):
    """A slice of the photos (binwatch.slicing), by the rule that it follows from. Slices are never forgotten.

    So all processes agree on which values of a rule came first.
    """

    __tablename__ = "slices"
    __table_args__ = (UniqueConstraint("rule", "name", name="uq_slices_name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    rule: Mapped[str]
    name: Mapped[str]
    first_at: Mapped[datetime]


class SlicePhotoTotal(Base):
    """Photos of a slice by model and reason ('' for counted)."""

    __tablename__ = "slice_photo_totals"

    slice_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    reason: Mapped[str] = mapped_column(String(40), primary_key=True)
    photos: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class SliceConfusionTotal(Base):
    """Comparisons of photos of a slice with the inventory, as in `confusion_totals`."""

    __tablename__ = "slice_confusion_totals"

    slice_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    true_class: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    predicted_class: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    comparisons: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class ComparisonHour(Base):
    """Comparisons made in one hour (UTC), by model and outcome."""

    __tablename__ = "comparison_hours"

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    outcome: Mapped[str] = mapped_column(String(10), primary_key=True)
    comparisons: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class PhotoHour(Base):
    """Photos counted in one hour (UTC), by model and by how sure it was, in tenths: what estimated accuracy needs."""

    __tablename__ = "photo_hours"

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    tenth: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    """0 for a probability of the count below 0.1, …, 9 for 0.9 and more."""
    photos: Mapped[int] = mapped_column(BigInteger)
    confidence: Mapped[float]
    """Sum of the probabilities of the counts."""
    last_at: Mapped[datetime]


class BinTotal(Base):
    """Bins by what is there of them. This total falls, too: a bin leaves one row when it enters another."""

    __tablename__ = "bin_totals"

    photo_state: Mapped[str] = mapped_column(String(10), primary_key=True)
    quantity_state: Mapped[str] = mapped_column(String(10), primary_key=True)
    bins: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class AuditTotal(Base):
    """Audits by what was answered, and how."""

    __tablename__ = "audit_totals"

    answer: Mapped[str] = mapped_column(String(20), primary_key=True)
    blind: Mapped[bool] = mapped_column(primary_key=True)
    audits: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class DriftBatch(Base):
    """A batch of a model's photos that drift alarms were judged by, and what came of it.

    Each batch continues where the one before has ended, whichever monitor closed that. Only the latest are kept.
    """

    __tablename__ = "drift_batches"

    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    slice_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, server_default="0")
    """Of `slices`; 0 for the photos of all."""
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """1, 2, 3, … of each model, and of each of its slices."""
    last_count_id: Mapped[int] = mapped_column(BigInteger)
    """Photos recorded up to this one belong to this batch or an earlier one, whether they were drawn or not."""
    count_ids: Mapped[list[int]]
    """Its photos, each of another bin."""
    began_at: Mapped[datetime]
    """When the batch before was closed; of the first one, when its first photo was recorded."""
    closed_at: Mapped[datetime]
    state: Mapped[dict[str, Any]]
    """monitor.drift.alarms.AlarmState after this batch."""


class Audit(Base):
    """What a person found in a bin, beside what was counted and expected of it at that moment."""

    __tablename__ = "audits"
    __table_args__ = (
        Index("ix_audits_bin", "bucket", "bin_id"),
        # For the bins whose last answer is not a number, which are few.
        Index("ix_audits_answer", "answer", "id"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    bucket: Mapped[str]
    bin_id: Mapped[str]
    answer: Mapped[str] = mapped_column(String(20))
    """binwatch.records.audits.Answer."""
    quantity: Mapped[int | None]
    """Items that were found (`count`) or seen (`at_least`); NULL of the other answers."""
    reason: Mapped[str | None] = mapped_column(String(20))
    """Why it was hard to tell (binwatch.records.audits.AuditReason); NULL if nothing was said."""
    note: Mapped[str | None]
    blind: Mapped[bool]
    """The auditor had seen neither the count nor the expected quantity."""
    auditor: Mapped[str | None]
    count_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("counts.id"))
    """The count that it judges; NULL if the bin's latest photo was not counted."""
    expectation_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("expectations.id"))
    """The expected quantity that it judges; NULL if the bin had none."""
    audited_at: Mapped[datetime]


class AuditDraw(Base):
    """A bin that was drawn at random for an audit: a ledger.

    The audits that answer it are those of the same photo, regardless of who entered them, and whether they knew.
    """

    __tablename__ = "audit_draws"
    # For the last draws, which estimates are made from and which may wait for an answer.
    __table_args__ = (Index("ix_audit_draws_drawn_at", "drawn_at", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    bucket: Mapped[str]
    bin_id: Mapped[str]
    count_id: Mapped[int] = mapped_column(BigId, ForeignKey("counts.id"))
    """The bin's latest count when it was drawn, by the model in use."""
    expectation_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("expectations.id"))
    """Its expected quantity then, which is judged: an audit of before may have led to its correction. NULL if it had
    none."""
    likelihood: Mapped[float]
    """How likely the bin was to be drawn, relative to others, above 0 and at most 1 (binwatch.records.draws)."""
    drawn_at: Mapped[datetime]


_UNDECIDED = text("closed_at IS NULL")


class Variance(Base):
    """A difference between what a person counted and what the inventory expects. At most one of a bin is undecided.

    Everything but what the trail begins with follows from the trail (binwatch.records.variances).
    """

    __tablename__ = "variances"
    __table_args__ = (
        Index("ix_variances_bin", "bucket", "bin_id", "id"),
        Index("ix_variances_state", "state", "id"),
        Index(
            "ux_variances_undecided",
            "bucket",
            "bin_id",
            unique=True,
            postgresql_where=_UNDECIDED,
            sqlite_where=_UNDECIDED,
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    bucket: Mapped[str]
    bin_id: Mapped[str] = mapped_column(BytewiseText)
    state: Mapped[str] = mapped_column(String(10))
    """binwatch.records.variances.VarianceState."""
    expected: Mapped[int]
    """Items that the inventory expected when it was opened, and still expects while it is undecided."""
    quantity: Mapped[int | None]
    """Items that most people found; NULL if there is no such number."""
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    """When it was approved, rejected or superseded."""


class VarianceEntry(Base):
    """A step of a variance: a ledger."""

    __tablename__ = "variance_trail"
    __table_args__ = (Index("ix_variance_trail_variance", "variance_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    variance_id: Mapped[int] = mapped_column(BigId, ForeignKey("variances.id"))
    step: Mapped[str] = mapped_column(String(10))
    """binwatch.records.variances.VarianceStep."""
    quantity: Mapped[int | None]
    """Items that were counted or approved, or that the inventory expects by now; NULL of a rejection."""
    person: Mapped[str | None]
    note: Mapped[str | None]
    audit_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("audits.id"))
    """Of a count: the audit."""
    at: Mapped[datetime]


class VarianceTotal(Base):
    """Variances by state. As `bin_totals`, it falls when a variance changes its state."""

    __tablename__ = "variance_totals"

    state: Mapped[str] = mapped_column(String(10), primary_key=True)
    variances: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class AuditRepeat(Base):
    """A photo that was given to a second auditor, to be audited blind once more: a ledger. It is no draw.

    The answer is that auditor's first blind one of the same photo.
    """

    __tablename__ = "audit_repeats"

    audit_id: Mapped[int] = mapped_column(BigId, ForeignKey("audits.id"), primary_key=True, autoincrement=False)
    """The first answer, by somebody else."""
    auditor: Mapped[str]
    """Who was given the photo."""
    given_at: Mapped[datetime]


class KnownAnswer(Base):
    """A photo whose true quantity is known, from elsewhere than an audit: what auditors are tested with."""

    __tablename__ = "known_answers"

    bucket: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    etag: Mapped[str] = mapped_column(primary_key=True)
    bin_id: Mapped[str]
    quantity: Mapped[int]
    source: Mapped[str]
    """Name of the file."""
    loaded_at: Mapped[datetime]
