"""The tables

One step for all that was before the first release. A database from before that has an older schema cannot be upgraded.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = None
branch_labels = None
depends_on = None

# SQLite numbers rows by itself only in a column that is exactly INTEGER.
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# Ordered byte by byte, as SQLite does by itself, so that an index on it finds what begins with a prefix.
BYTEWISE = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")
AT = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON(none_as_null=True)
TABLES = sa.MetaData()

sa.Table(
    "audit_totals",
    TABLES,
    sa.Column("subject", sa.String(length=10), nullable=False),
    sa.Column("model_version", sa.String(length=100), nullable=False),
    sa.Column("audited_class", sa.SmallInteger(), autoincrement=False, nullable=False),
    sa.Column("outcome", sa.String(length=10), nullable=False),
    sa.Column("audits", sa.BigInteger(), nullable=False),
    sa.Column("within_one", sa.BigInteger(), nullable=False),
    sa.Column("absolute_error", sa.BigInteger(), nullable=False),
    sa.Column("squared_error", sa.BigInteger(), nullable=False),
    sa.Column("last_at", AT, nullable=False),
    sa.PrimaryKeyConstraint("subject", "model_version", "audited_class", "outcome"),
)

sa.Table(
    "bin_totals",
    TABLES,
    sa.Column("photo_state", sa.String(length=10), nullable=False),
    sa.Column("quantity_state", sa.String(length=10), nullable=False),
    sa.Column("bins", sa.BigInteger(), nullable=False),
    sa.Column("last_at", AT, nullable=False),
    sa.PrimaryKeyConstraint("photo_state", "quantity_state"),
)

sa.Table(
    "comparison_hours",
    TABLES,
    sa.Column("hour", AT, nullable=False),
    sa.Column("model_version", sa.String(length=100), nullable=False),
    sa.Column("outcome", sa.String(length=10), nullable=False),
    sa.Column("comparisons", sa.BigInteger(), nullable=False),
    sa.Column("within_one", sa.BigInteger(), nullable=False),
    sa.Column("absolute_error", sa.BigInteger(), nullable=False),
    sa.Column("squared_error", sa.BigInteger(), nullable=False),
    sa.Column("last_at", AT, nullable=False),
    sa.PrimaryKeyConstraint("hour", "model_version", "outcome"),
)

sa.Table(
    "comparison_totals",
    TABLES,
    sa.Column("model_version", sa.String(length=100), nullable=False),
    sa.Column("expected_class", sa.SmallInteger(), autoincrement=False, nullable=False),
    sa.Column("outcome", sa.String(length=10), nullable=False),
    sa.Column("comparisons", sa.BigInteger(), nullable=False),
    sa.Column("within_one", sa.BigInteger(), nullable=False),
    sa.Column("absolute_error", sa.BigInteger(), nullable=False),
    sa.Column("squared_error", sa.BigInteger(), nullable=False),
    sa.Column("last_at", AT, nullable=False),
    sa.PrimaryKeyConstraint("model_version", "expected_class", "outcome"),
)

sa.Table(
    "confusion_totals",
    TABLES,
    sa.Column("subject", sa.String(length=10), nullable=False),
    sa.Column("model_version", sa.String(length=100), nullable=False),
    sa.Column("true_class", sa.SmallInteger(), autoincrement=False, nullable=False),
    sa.Column("predicted", sa.SmallInteger(), autoincrement=False, nullable=False),
    sa.Column("comparisons", sa.BigInteger(), nullable=False),
    sa.Column("last_at", AT, nullable=False),
    sa.PrimaryKeyConstraint("subject", "model_version", "true_class", "predicted"),
)

sa.Table(
    "counts",
    TABLES,
    sa.Column("id", BIG_ID, nullable=False),
    sa.Column("bucket", sa.Text(), nullable=False),
    sa.Column("key", sa.Text(), nullable=False),
    sa.Column("etag", sa.Text(), nullable=False),
    sa.Column("version_id", sa.Text(), nullable=True),
    sa.Column("bin_id", sa.Text(), nullable=False),
    sa.Column("model_version", sa.String(length=100), nullable=False),
    sa.Column("precision", sa.String(length=10), nullable=False),
    sa.Column("provider", sa.String(length=60), nullable=False),
    sa.Column("reason", sa.String(length=40), nullable=True),
    sa.Column("detail", sa.Text(), nullable=True),
    sa.Column("predicted", sa.SmallInteger(), nullable=True),
    sa.Column("probabilities", DOCUMENT, nullable=True),
    sa.Column("width", sa.Integer(), nullable=True),
    sa.Column("height", sa.Integer(), nullable=True),
    sa.Column("bytes", sa.BigInteger(), nullable=True),
    sa.Column("brightness", sa.Double(), nullable=True),
    sa.Column("contrast", sa.Double(), nullable=True),
    sa.Column("sharpness", sa.Double(), nullable=True),
    sa.Column("embedding", sa.LargeBinary(), nullable=True),
    sa.Column("modified_at", AT, nullable=False),
    sa.Column("recorded_at", AT, nullable=False),
    sa.Column("tried_at", AT, nullable=True),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("bucket", "key", "etag", "model_version", name="uq_counts_photo_model"),
)

sa.Table(
    "expectation_totals",
    TABLES,
    sa.Column("reason", sa.String(length=40), nullable=False),
    sa.Column("expectations", sa.BigInteger(), nullable=False),
    sa.Column("last_at", AT, nullable=False),
    sa.PrimaryKeyConstraint("reason"),
)

sa.Table(
    "expectations",
    TABLES,
    sa.Column("id", BIG_ID, nullable=False),
    sa.Column("bucket", sa.Text(), nullable=False),
    sa.Column("bin_id", sa.Text(), nullable=False),
    sa.Column("source", sa.Text(), nullable=False),
    sa.Column("etag", sa.Text(), nullable=False),
    sa.Column("quantity", sa.Integer(), nullable=True),
    sa.Column("reason", sa.String(length=40), nullable=True),
    sa.Column("detail", sa.Text(), nullable=True),
    sa.Column("contents", DOCUMENT, nullable=True),
    sa.Column("modified_at", AT, nullable=False),
    sa.Column("recorded_at", AT, nullable=False),
    sa.Column("tried_at", AT, nullable=True),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("bucket", "bin_id", "source", "etag", "modified_at", name="uq_expectations_upload"),
)

sa.Table(
    "models",
    TABLES,
    sa.Column("model_version", sa.String(length=100), nullable=False),
    sa.Column("first_at", AT, nullable=False),
    sa.Column("calibration", DOCUMENT, nullable=True),
    sa.Column("calibrated_at", AT, nullable=True),
    sa.PrimaryKeyConstraint("model_version"),
)

sa.Table(
    "photo_hours",
    TABLES,
    sa.Column("hour", AT, nullable=False),
    sa.Column("model_version", sa.String(length=100), nullable=False),
    sa.Column("tenth", sa.SmallInteger(), autoincrement=False, nullable=False),
    sa.Column("photos", sa.BigInteger(), nullable=False),
    sa.Column("confidence", sa.Double(), nullable=False),
    sa.Column("last_at", AT, nullable=False),
    sa.PrimaryKeyConstraint("hour", "model_version", "tenth"),
)

sa.Table(
    "photo_totals",
    TABLES,
    sa.Column("model_version", sa.String(length=100), nullable=False),
    sa.Column("reason", sa.String(length=40), nullable=False),
    sa.Column("photos", sa.BigInteger(), nullable=False),
    sa.Column("last_at", AT, nullable=False),
    sa.PrimaryKeyConstraint("model_version", "reason"),
)

sa.Table(
    "rank_totals",
    TABLES,
    sa.Column("kind", sa.String(length=20), nullable=False),
    sa.Column("bins", sa.BigInteger(), nullable=False),
    sa.Column("last_at", AT, nullable=False),
    sa.PrimaryKeyConstraint("kind"),
)

sa.Table(
    "trials",
    TABLES,
    sa.Column("bucket", sa.Text(), nullable=False),
    sa.Column("key", sa.Text(), nullable=False),
    sa.Column("begun", sa.Integer(), nullable=False),
    sa.Column("last_at", AT, nullable=False),
    sa.PrimaryKeyConstraint("bucket", "key"),
)

sa.Table(
    "audits",
    TABLES,
    sa.Column("id", BIG_ID, nullable=False),
    sa.Column("bucket", sa.Text(), nullable=False),
    sa.Column("bin_id", sa.Text(), nullable=False),
    sa.Column("quantity", sa.Integer(), nullable=False),
    sa.Column("auditor", sa.Text(), nullable=True),
    sa.Column("count_id", BIG_ID, nullable=True),
    sa.Column("expectation_id", BIG_ID, nullable=True),
    sa.Column("audited_at", AT, nullable=False),
    sa.ForeignKeyConstraint(
        ["count_id"],
        ["counts.id"],
    ),
    sa.ForeignKeyConstraint(
        ["expectation_id"],
        ["expectations.id"],
    ),
    sa.PrimaryKeyConstraint("id"),
)

sa.Table(
    "bins",
    TABLES,
    sa.Column("bucket", sa.Text(), nullable=False),
    sa.Column("bin_id", sa.Text(), nullable=False),
    sa.Column("count_id", BIG_ID, nullable=True),
    sa.Column("photo_at", AT, nullable=True),
    sa.Column("expectation_id", BIG_ID, nullable=True),
    sa.Column("expected_at", AT, nullable=True),
    sa.Column("photo_state", sa.String(length=10), nullable=True),
    sa.Column("quantity_state", sa.String(length=10), nullable=True),
    sa.ForeignKeyConstraint(
        ["count_id"],
        ["counts.id"],
    ),
    sa.ForeignKeyConstraint(
        ["expectation_id"],
        ["expectations.id"],
    ),
    sa.PrimaryKeyConstraint("bucket", "bin_id"),
)

sa.Table(
    "comparisons",
    TABLES,
    sa.Column("id", BIG_ID, nullable=False),
    sa.Column("bucket", sa.Text(), nullable=False),
    sa.Column("bin_id", sa.Text(), nullable=False),
    sa.Column("count_id", BIG_ID, nullable=False),
    sa.Column("expectation_id", BIG_ID, nullable=False),
    sa.Column("model_version", sa.String(length=100), nullable=False),
    sa.Column("predicted", sa.SmallInteger(), nullable=False),
    sa.Column("expected", sa.Integer(), nullable=False),
    sa.Column("error", sa.Integer(), nullable=False),
    sa.Column("outcome", sa.String(length=10), nullable=False),
    sa.Column("chance", sa.Double(), nullable=True),
    sa.Column("p_value", sa.Double(), nullable=True),
    sa.Column("compared_at", AT, nullable=False),
    sa.ForeignKeyConstraint(
        ["count_id"],
        ["counts.id"],
    ),
    sa.ForeignKeyConstraint(
        ["expectation_id"],
        ["expectations.id"],
    ),
    sa.PrimaryKeyConstraint("id"),
    sa.UniqueConstraint("count_id", "expectation_id", name="uq_comparisons_pair"),
)

sa.Table(
    "current_comparisons",
    TABLES,
    sa.Column("bin_id", BYTEWISE, nullable=False),
    sa.Column("bucket", sa.Text(), nullable=False),
    sa.Column("comparison_id", BIG_ID, nullable=False),
    sa.Column("count_id", BIG_ID, nullable=False),
    sa.Column("expectation_id", BIG_ID, nullable=False),
    sa.Column("model_version", sa.String(length=100), nullable=False),
    sa.Column("key", BYTEWISE, nullable=False),
    sa.Column("photo_at", AT, nullable=False),
    sa.Column("predicted", sa.SmallInteger(), nullable=False),
    sa.Column("expected", sa.Integer(), nullable=False),
    sa.Column("difference", sa.Integer(), nullable=False),
    sa.Column("chance", sa.Double(), nullable=False),
    sa.Column("p_value", sa.Double(), nullable=True),
    sa.Column("doubt", sa.Double(), nullable=False),
    sa.Column("audit_id", BIG_ID, nullable=True),
    sa.ForeignKeyConstraint(
        ["audit_id"],
        ["audits.id"],
    ),
    sa.ForeignKeyConstraint(
        ["comparison_id"],
        ["comparisons.id"],
    ),
    sa.ForeignKeyConstraint(
        ["count_id"],
        ["counts.id"],
    ),
    sa.ForeignKeyConstraint(
        ["expectation_id"],
        ["expectations.id"],
    ),
    sa.PrimaryKeyConstraint("bin_id", "bucket"),
)


def upgrade() -> None:
    TABLES.create_all(op.get_bind())
    op.create_index("ix_counts_bin", "counts", ["bucket", "bin_id"])
    op.create_index("ix_counts_recorded_at", "counts", ["recorded_at"])
    op.create_index("ix_expectations_recorded_at", "expectations", ["recorded_at"])
    op.create_index("ix_audits_bin", "audits", ["bucket", "bin_id"])
    op.create_index("ix_comparisons_bin", "comparisons", ["bucket", "bin_id"])
    op.create_index("ix_comparisons_compared_at", "comparisons", ["compared_at"])
    op.create_index(
        "ix_current_audit",
        "current_comparisons",
        ["audit_id"],
        postgresql_where=sa.text("audit_id IS NOT NULL"),
        sqlite_where=sa.text("audit_id IS NOT NULL"),
    )
    op.create_index("ix_current_difference", "current_comparisons", ["difference", "doubt", "chance", "comparison_id"])
    op.create_index("ix_current_key", "current_comparisons", ["key"])
    op.create_index("ix_current_model", "current_comparisons", ["model_version", "doubt", "chance", "comparison_id"])
    op.create_index("ix_current_photo_at", "current_comparisons", ["photo_at"])
    op.create_index("ix_current_rank", "current_comparisons", ["doubt", "chance", "comparison_id"])
    op.create_index(
        "ix_current_wrong",
        "current_comparisons",
        ["doubt", "chance", "comparison_id"],
        postgresql_include=["audit_id"],
        postgresql_where=sa.text("difference <> 0"),
        sqlite_where=sa.text("difference <> 0"),
    )
