"""Slices: photos, comparisons and drift batches by a part of the key

The index on `counts` is empty until photos have a slice; to make it, the table is read once.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

IN_SLICE = sa.text("slice_id IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "slices",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("rule", "name", name="uq_slices_name"),
    )
    op.create_table(
        "slice_photo_totals",
        sa.Column("slice_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("model_version", sa.String(100), primary_key=True),
        sa.Column("reason", sa.String(40), primary_key=True),
        sa.Column("photos", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "slice_confusion_totals",
        sa.Column("slice_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("model_version", sa.String(100), primary_key=True),
        sa.Column("true_class", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("predicted_class", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("comparisons", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
    )
    for table in ("counts", "current_comparisons"):
        op.add_column(table, sa.Column("slice_id", sa.Integer(), nullable=True))
    op.create_index("ix_counts_slice", "counts", ["slice_id", "id"], postgresql_where=IN_SLICE, sqlite_where=IN_SLICE)
    _key_drift_batches_by_slice()


def _key_drift_batches_by_slice() -> None:
    """SQLite cannot alter a primary key, so the table is copied; no other refers to it."""
    op.create_table(
        "drift_batches_by_slice",
        sa.Column("model_version", sa.String(100), primary_key=True),
        sa.Column("slice_id", sa.Integer(), primary_key=True, autoincrement=False, server_default="0"),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("last_count_id", sa.BigInteger(), nullable=False),
        sa.Column("count_ids", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.JSON(none_as_null=True), nullable=False),
    )
    op.execute(
        "INSERT INTO drift_batches_by_slice"
        " (model_version, number, last_count_id, count_ids, began_at, closed_at, state)"
        " SELECT model_version, number, last_count_id, count_ids, began_at, closed_at, state FROM drift_batches"
    )
    op.drop_table("drift_batches")
    op.rename_table("drift_batches_by_slice", "drift_batches")
