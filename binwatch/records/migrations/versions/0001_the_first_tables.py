"""The first tables"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite numbers rows by itself only in a column that is exactly INTEGER.
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "comparison_totals",
        sa.Column("model_version", sa.String(length=100), nullable=False),
        sa.Column("expected_class", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("comparisons", sa.BigInteger(), nullable=False),
        sa.Column("within_one", sa.BigInteger(), nullable=False),
        sa.Column("absolute_error", sa.BigInteger(), nullable=False),
        sa.Column("squared_error", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model_version", "expected_class", "outcome"),
    )
    op.create_table(
        "counts",
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
        sa.Column("probabilities", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("modified_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("bucket", "key", "etag", "model_version", name="uq_counts_photo_model"),
    )
    with op.batch_alter_table("counts", schema=None) as batch_op:
        batch_op.create_index("ix_counts_bin", ["bucket", "bin_id"], unique=False)
        batch_op.create_index("ix_counts_recorded_at", ["recorded_at"], unique=False)

    op.create_table(
        "expectation_totals",
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("expectations", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("reason"),
    )
    op.create_table(
        "expectations",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("bin_id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(length=40), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("modified_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("bucket", "bin_id", "source", "etag", "modified_at", name="uq_expectations_upload"),
    )
    with op.batch_alter_table("expectations", schema=None) as batch_op:
        batch_op.create_index("ix_expectations_recorded_at", ["recorded_at"], unique=False)

    op.create_table(
        "photo_totals",
        sa.Column("model_version", sa.String(length=100), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("photos", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model_version", "reason"),
    )
    op.create_table(
        "bins",
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("bin_id", sa.Text(), nullable=False),
        sa.Column("count_id", BIG_ID, nullable=True),
        sa.Column("photo_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expectation_id", BIG_ID, nullable=True),
        sa.Column("expected_at", sa.DateTime(timezone=True), nullable=True),
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
    op.create_table(
        "comparisons",
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
        sa.Column("compared_at", sa.DateTime(timezone=True), nullable=False),
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
    with op.batch_alter_table("comparisons", schema=None) as batch_op:
        batch_op.create_index("ix_comparisons_bin", ["bucket", "bin_id"], unique=False)
        batch_op.create_index("ix_comparisons_compared_at", ["compared_at"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("comparisons", schema=None) as batch_op:
        batch_op.drop_index("ix_comparisons_compared_at")
        batch_op.drop_index("ix_comparisons_bin")

    op.drop_table("comparisons")
    op.drop_table("bins")
    op.drop_table("photo_totals")
    with op.batch_alter_table("expectations", schema=None) as batch_op:
        batch_op.drop_index("ix_expectations_recorded_at")

    op.drop_table("expectations")
    op.drop_table("expectation_totals")
    with op.batch_alter_table("counts", schema=None) as batch_op:
        batch_op.drop_index("ix_counts_recorded_at")
        batch_op.drop_index("ix_counts_bin")

    op.drop_table("counts")
    op.drop_table("comparison_totals")
