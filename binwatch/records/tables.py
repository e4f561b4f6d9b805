"""Tables of the records.

`counts`, `expectations`, `comparisons`, `audits`, `audit_draws`, `audit_repeats` and `variance_trail` are append-only
ledgers. `bins` has the latest count and the latest expected quantity of each bin, and `current_comparisons` compares
them. `*_totals` and `*_hours` are running totals, updated in the same transaction as the ledgers, so that a scrape or a
page takes as long with ten million records as with a thousand.
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

from binwatch.moments import to_utc


class UtcDateTime(TypeDecorator[datetime]):
    """A time in UTC. SQLite does not store time zones, so UTC is added on reading. Naive times raise ValueError."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return to_utc(value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_Bytes = bytes
"""`bytes`, under a name that still means the type inside `Count`, which has a column `bytes`."""

# SQLite assigns ids automatically only to a column of type INTEGER.
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


# Literal text, since SQLite uses a partial index only if the query's condition has no parameters (monitor.views.lists).
_IS_FAILED = text("reason IS NOT NULL")
_IS_COUNTED = text("predicted IS NOT NULL")
_HAS_SLICE = text("slice_id IS NOT NULL")
WITHOUT_QUANTITY = text("photo_state <> 'none' AND quantity_state <> 'known'")
WITHOUT_PHOTO = text("photo_state = 'none' AND quantity_state = 'known'")


class Count(Base):
    """A model's count of a photo, or the reason why it was not counted."""

    __tablename__ = "counts"
    __table_args__ = (
        UniqueConstraint("bucket", "key", "etag", "model_version", name="uq_counts_photo_model"),
        Index("ix_counts_bin", "bucket", "bin_id"),
        Index("ix_counts_recorded_at", "recorded_at"),
        Index("ix_counts_failed", "id", postgresql_where=_IS_FAILED, sqlite_where=_IS_FAILED),
        # For draws after a change of model, when nearly all counts are by another model.
        Index("ix_counts_model", "model_version", "id", postgresql_where=_IS_COUNTED, sqlite_where=_IS_COUNTED),
        Index("ix_counts_slice", "slice_id", "id", postgresql_where=_HAS_SLICE, sqlite_where=_HAS_SLICE),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    bucket: Mapped[str]
    key: Mapped[str]
    etag: Mapped[str]
    """ETag of the fetched photo, or of the listing or event if it could not be fetched; empty if unknown."""
    version_id: Mapped[str | None]
    bin_id: Mapped[str]
    slice_id: Mapped[int | None]
    """Id in `slices`, by the rule in force when the photo was recorded; NULL without a rule."""
    model_version: Mapped[str] = mapped_column(String(100))
    precision: Mapped[str] = mapped_column(String(10))
    provider: Mapped[str] = mapped_column(String(60))
    reason: Mapped[str | None] = mapped_column(String(40))
    """Why the photo was not counted (binwatch.errors.Reason); NULL if it was."""
    detail: Mapped[str | None]
    predicted: Mapped[int | None] = mapped_column(SmallInteger)
    """Index of the class; 6 is "more than 5"."""
    probabilities: Mapped[list[float] | None]
    """Probabilities of the classes."""
    distribution: Mapped[list[float] | None]
    """Probabilities of 0, 1, … items and of more; NULL if the model has only the classes."""
    width: Mapped[int | None]
    height: Mapped[int | None]
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    brightness: Mapped[float | None]
    """Brightness, contrast and sharpness: see binwatch.photo_stats.PhotoStats."""
    contrast: Mapped[float | None]
    sharpness: Mapped[float | None]
    embedding: Mapped[_Bytes | None]
    """The embedding, for drift: float16, little-endian (binwatch.embedding)."""
    modified_at: Mapped[datetime]
    """Time of the last upload of this photo (or of its event, if it could not be fetched)."""
    recorded_at: Mapped[datetime]
    tried_at: Mapped[datetime | None]
    """Time of the last failed attempt to fetch it again; NULL if there was none."""


class Expectation(Base):
    """An expected quantity of a bin, or the reason why its metadata file has none."""

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
    """Articles in the bin (binwatch.metadata.Article); NULL if the source lists none."""
    modified_at: Mapped[datetime]
    recorded_at: Mapped[datetime]
    tried_at: Mapped[datetime | None]
    """Time of the last failed attempt to fetch it again; NULL if there was none."""


class Bin(Base):
    """A bin with its latest photo and its latest expected quantity, by S3's clock."""

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
    """State of the latest photo (binwatch.records.settlement.PhotoState), as in `bin_totals`."""
    quantity_state: Mapped[str | None] = mapped_column(String(10))
    """State of the latest quantity (binwatch.records.settlement.QuantityState), as in `bin_totals`."""


class Comparison(Base):
    """A comparison of a count with the expected quantity of the same bin.

    A corrected quantity adds another comparison. A repeated quantity, from the same file or another, does not.
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
    """First expectation with this quantity while this photo was the bin's latest."""
    model_version: Mapped[str] = mapped_column(String(100))
    predicted: Mapped[int] = mapped_column(SmallInteger)
    expected: Mapped[int]
    error: Mapped[int]
    """predicted − expected in items, both capped at "more than 5" (6)."""
    outcome: Mapped[str] = mapped_column(String(10))
    chance: Mapped[float | None]
    """The model's probability of the expected quantity's class; NULL if the count has no probabilities, or the model's
    calibration does not cover the quantity."""
    p_value: Mapped[float | None]
    """P-value of the expected quantity (binwatch.conformal) by the first calibration that gave one; NULL if none has.
    `current_comparisons` has the p-value by the current calibration."""
    p_missing: Mapped[float | None]
    """P-value for missing items; NULL if `p_value` is NULL."""
    p_surplus: Mapped[float | None]
    """P-value for a surplus; NULL if `p_value` is NULL."""
    compared_at: Mapped[datetime]


# Sorted byte by byte, as in SQLite, so that an index can find prefixes.
BytewiseText = Text(collation="C").with_variant(Text(), "sqlite")

_IS_AUDITED = text("audit_id IS NOT NULL")
_IS_DISCREPANCY = text("difference <> 0")
_IS_MISSING = text("difference < 0")
_IS_SURPLUS = text("difference > 0")


class CurrentComparison(Base):
    """Comparison of a bin's latest photo with its latest expected quantity. A bin that lacks one of them has no row.

    The row has all columns by which discrepancies are filtered and ranked. The order is `doubt`, then `chance`, then
    `comparison_id`; for a single direction, `doubt_one_sided` replaces `doubt`.
    """

    __tablename__ = "current_comparisons"
    __table_args__ = (
        Index("ix_current_rank", "doubt", "chance", "comparison_id"),
        # Only discrepancies, so that a search for the next one does not pass over all bins that agree. Includes the
        # audit, so that PostgreSQL can count with an index-only scan.
        Index(
            "ix_current_wrong",
            "doubt",
            "chance",
            "comparison_id",
            postgresql_include=["audit_id"],
            postgresql_where=_IS_DISCREPANCY,
            sqlite_where=_IS_DISCREPANCY,
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
            for name, where in (("missing", _IS_MISSING), ("surplus", _IS_SURPLUS))
        ),
        Index("ix_current_model", "model_version", "doubt", "chance", "comparison_id"),
        # For bins that were not judged by the current calibration.
        Index("ix_current_calibration", "model_version", "calibration", "comparison_id"),
        # For bins that are rare or far down the ranking: large differences, and bins that agree.
        Index("ix_current_difference", "difference", "doubt", "chance", "comparison_id"),
        Index("ix_current_key", "key"),
        Index("ix_current_photo_at", "photo_at"),
        Index("ix_current_audit", "audit_id", postgresql_where=_IS_AUDITED, sqlite_where=_IS_AUDITED),
    )

    # The bin comes first in the primary key, so that bins can be found by a prefix of their ids.
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
    """predicted − expected in items, without the cap of `comparisons.error`; beyond 5 by the distribution
    (binwatch.counts.item_difference)."""
    chance: Mapped[float]
    """As in `comparisons`, but 1 if unknown, so that the bin is ranked last."""
    p_value: Mapped[float | None]
    p_missing: Mapped[float | None]
    p_surplus: Mapped[float | None]
    doubt: Mapped[float]
    """`p_value`; without one, 1 + `chance`, which ranks the bin after all bins with a p-value; without a probability
    of the expected quantity, 3, which ranks it last."""
    doubt_one_sided: Mapped[float]
    """Like `doubt`, but with `p_missing` if `difference` is negative, else with `p_surplus`."""
    calibration: Mapped[int]
    """Number of the calibration that judged the bin (`models.calibrations`); 0 without one."""
    audit_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("audits.id"))
    """The last audit of this photo; NULL if there is none."""
    slice_id: Mapped[int | None]
    """The count's slice."""


class RankTotal(Base):
    """Number of rows of `current_comparisons` with or without a p-value. It may decrease, like `bin_totals`."""

    __tablename__ = "rank_totals"

    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    """binwatch.records.settlement.RankKind."""
    bins: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class Model(Base):
    """A model that is or was in use, and its calibration for p-values."""

    __tablename__ = "models"

    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    first_at: Mapped[datetime]
    calibration: Mapped[dict[str, Any] | None]
    """binwatch.conformal.Calibration; NULL if its bundle has none."""
    calibrated_at: Mapped[datetime | None]
    """Time of the last change of `calibration`."""
    calibrations: Mapped[int]
    """Number of calibrations so far, which is also the number of the current one; 0 without a calibration."""


class PhotoTotal(Base):
    """Number of photos by model and reason ('' if counted)."""

    __tablename__ = "photo_totals"

    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    reason: Mapped[str] = mapped_column(String(40), primary_key=True)
    photos: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class ExpectationTotal(Base):
    """Number of expected quantities by reason ('' if read)."""

    __tablename__ = "expectation_totals"

    reason: Mapped[str] = mapped_column(String(40), primary_key=True)
    expectations: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class ConfusionTotal(Base):
    """Number of comparisons by true and predicted class.

    Rows for audits may decrease: for each count, and for each expected quantity per photo, only the last exact number
    is included, and a corrected one is subtracted. Blind and sighted audits have separate rows, and correct only
    their own kind. Rows for the inventory never decrease.
    """

    __tablename__ = "confusion_totals"

    reference: Mapped[str] = mapped_column(String(10), primary_key=True)
    """Source of the true class (binwatch.confusion.TruthSource)."""
    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    """'' if an audit judges the inventory. The predicted class is then that of the expected quantity."""
    true_class: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    predicted_class: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    comparisons: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class Slice(Base):
    """A slice of the photos (binwatch.slicing) and its rule.

    Slices are never deleted, so that all processes agree on which names of a rule came first.
    """

    __tablename__ = "slices"
    __table_args__ = (UniqueConstraint("rule", "name", name="uq_slices_name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    rule: Mapped[str]
    name: Mapped[str]
    first_at: Mapped[datetime]


class SlicePhotoTotal(Base):
    """Number of photos of a slice by model and reason ('' if counted)."""

    __tablename__ = "slice_photo_totals"

    slice_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    reason: Mapped[str] = mapped_column(String(40), primary_key=True)
    photos: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class SliceConfusionTotal(Base):
    """Number of comparisons by true and predicted class, for the photos of a slice and the inventory."""

    __tablename__ = "slice_confusion_totals"

    slice_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    true_class: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    predicted_class: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    comparisons: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class ComparisonHour(Base):
    """Number of comparisons in an hour (UTC), by model and outcome."""

    __tablename__ = "comparison_hours"

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    outcome: Mapped[str] = mapped_column(String(10), primary_key=True)
    comparisons: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class PhotoHour(Base):
    """Number of photos counted in an hour (UTC), by model and tenth of confidence, for estimated accuracy."""

    __tablename__ = "photo_hours"

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    tenth: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    """0 if the probability of the count is below 0.1, …, 9 if it is 0.9 or more."""
    photos: Mapped[int] = mapped_column(BigInteger)
    confidence: Mapped[float]
    """Sum of the probabilities of the counts."""
    last_at: Mapped[datetime]


class BinTotal(Base):
    """Number of bins by state. It may decrease, since bins move from one row to another."""

    __tablename__ = "bin_totals"

    photo_state: Mapped[str] = mapped_column(String(10), primary_key=True)
    quantity_state: Mapped[str] = mapped_column(String(10), primary_key=True)
    bins: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class AuditTotal(Base):
    """Number of audits by answer, blind or sighted."""

    __tablename__ = "audit_totals"

    answer: Mapped[str] = mapped_column(String(20), primary_key=True)
    blind: Mapped[bool] = mapped_column(primary_key=True)
    audits: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class DriftBatch(Base):
    """A batch of a model's photos, and the state of its drift alarms after the batch.

    Each batch starts where the previous one ended, even if another monitor closed that one. Only the latest batches are
    kept.
    """

    __tablename__ = "drift_batches"

    model_version: Mapped[str] = mapped_column(String(100), primary_key=True)
    slice_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, server_default="0")
    """Id in `slices`; 0 for all photos."""
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """1, 2, 3, … for each model and each of its slices."""
    last_count_id: Mapped[int] = mapped_column(BigInteger)
    """Id in `counts` of the last photo in the batch's time span. Later batches have only later photos."""
    count_ids: Mapped[list[int]]
    """Ids in `counts` of the batch's photos, each of a different bin."""
    began_at: Mapped[datetime]
    """Time at which the previous batch was closed; for the first batch, the time of its first photo."""
    closed_at: Mapped[datetime]
    state: Mapped[dict[str, Any]]
    """monitor.drift.alarms.AlarmState after this batch."""


class Audit(Base):
    """A person's answer for a bin, with the bin's count and expected quantity at that time."""

    __tablename__ = "audits"
    __table_args__ = (
        Index("ix_audits_bin", "bucket", "bin_id"),
        # For the few bins whose last answer is not a number.
        Index("ix_audits_answer", "answer", "id"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    bucket: Mapped[str]
    bin_id: Mapped[str]
    answer: Mapped[str] = mapped_column(String(20))
    """binwatch.records.audits.AuditAnswer."""
    quantity: Mapped[int | None]
    """Number of items, exact (`count`) or visible (`at_least`); NULL for other answers."""
    reason: Mapped[str | None] = mapped_column(String(20))
    """Why the number was hard to tell (binwatch.records.audits.AuditReason); NULL if the auditor gave no reason."""
    note: Mapped[str | None]
    blind: Mapped[bool]
    """Whether the auditor had seen neither the count nor the expected quantity."""
    auditor: Mapped[str | None]
    count_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("counts.id"))
    """The count that the audit judges; NULL if the bin's latest photo was not counted, or there is none."""
    expectation_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("expectations.id"))
    """The expected quantity that the audit judges; NULL if the bin had none."""
    audited_at: Mapped[datetime]


class AuditDraw(Base):
    """A random draw of a bin for an audit. This table is a ledger.

    Any blind audit of the drawn photo answers the draw, even by someone who does not know of it.
    """

    __tablename__ = "audit_draws"
    # For the latest draws: estimates are made from them, and some of them are unanswered.
    __table_args__ = (Index("ix_audit_draws_drawn_at", "drawn_at", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    bucket: Mapped[str]
    bin_id: Mapped[str]
    count_id: Mapped[int] = mapped_column(BigId, ForeignKey("counts.id"))
    """The bin's latest count when it was drawn, by the model in use."""
    expectation_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("expectations.id"))
    """The expected quantity at the time of the draw; NULL if there was none. The answer judges this one even if it has
    been corrected since."""
    likelihood: Mapped[float]
    """Relative likelihood with which the bin was drawn, above 0 and at most 1 (binwatch.records.draws)."""
    drawn_at: Mapped[datetime]


_IS_UNDECIDED = text("closed_at IS NULL")


class Variance(Base):
    """A difference between a person's count and the inventory. A bin has at most one undecided variance.

    `state` and `quantity` follow from the trail (binwatch.records.variances).
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
            postgresql_where=_IS_UNDECIDED,
            sqlite_where=_IS_UNDECIDED,
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    bucket: Mapped[str]
    bin_id: Mapped[str] = mapped_column(BytewiseText)
    state: Mapped[str] = mapped_column(String(10))
    """binwatch.records.variances.VarianceState."""
    expected: Mapped[int]
    """Quantity that the inventory expected when the variance was opened. A correction supersedes the variance."""
    quantity: Mapped[int | None]
    """Number of items that people agree on (binwatch.records.variances.standing_of); NULL if there is none."""
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    """Time at which the variance was approved, rejected or superseded; NULL if it is undecided."""


class VarianceEntry(Base):
    """A step of a variance. This table is a ledger."""

    __tablename__ = "variance_trail"
    __table_args__ = (Index("ix_variance_trail_variance", "variance_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    variance_id: Mapped[int] = mapped_column(BigId, ForeignKey("variances.id"))
    step: Mapped[str] = mapped_column(String(10))
    """binwatch.records.variances.VarianceStep."""
    quantity: Mapped[int | None]
    """Counted or approved number of items, or the corrected expected quantity; NULL for a rejection."""
    person: Mapped[str | None]
    note: Mapped[str | None]
    audit_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("audits.id"))
    """The audit if the step is a count, else NULL."""
    at: Mapped[datetime]


class VarianceTotal(Base):
    """Number of variances by state. It may decrease, like `bin_totals`."""

    __tablename__ = "variance_totals"

    state: Mapped[str] = mapped_column(String(10), primary_key=True)
    variances: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]


class AuditRepeat(Base):
    """A photo that was given to a second auditor for another blind audit. This table is a ledger.

    The second auditor's first blind audit of the photo is the answer. A repeat is not a draw.
    """

    __tablename__ = "audit_repeats"

    audit_id: Mapped[int] = mapped_column(BigId, ForeignKey("audits.id"), primary_key=True, autoincrement=False)
    """The first audit, by another person."""
    auditor: Mapped[str]
    """The second auditor."""
    given_at: Mapped[datetime]


class KnownAnswer(Base):
    """A photo whose true quantity is known from a source other than audits, for testing auditors."""

    __tablename__ = "known_answers"

    bucket: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    etag: Mapped[str] = mapped_column(primary_key=True)
    bin_id: Mapped[str]
    quantity: Mapped[int]
    source: Mapped[str]
    """Name of the imported file."""
    loaded_at: Mapped[datetime]
