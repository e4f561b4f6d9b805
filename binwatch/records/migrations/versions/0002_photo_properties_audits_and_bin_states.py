"""Photo properties, audits and the states of bins"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# SQLite numbers rows by itself only in a column that is exactly INTEGER.
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# The states of the bins that are there already, as binwatch.records.bins finds them.
PHOTO_STATE = """
    UPDATE bins SET photo_state = CASE WHEN count_id IS NULL THEN 'none'
        WHEN (SELECT reason FROM counts WHERE counts.id = bins.count_id) IS NULL THEN 'counted' ELSE 'failed' END
"""
QUANTITY_STATE = """
    UPDATE bins SET quantity_state = CASE WHEN expectation_id IS NULL THEN 'none'
        WHEN (SELECT reason FROM expectations WHERE expectations.id = bins.expectation_id) IS NULL THEN 'known'
        ELSE 'unreadable' END
"""
BIN_TOTALS = """
    INSERT INTO bin_totals (photo_state, quantity_state, bins, last_at)
    SELECT photo_state, quantity_state, count(*), CURRENT_TIMESTAMP FROM bins GROUP BY photo_state, quantity_state
"""


def upgrade() -> None:
    # Adding columns without batch mode: SQLite would copy the whole table otherwise.
    for name in ("brightness", "contrast", "sharpness"):
        op.add_column("counts", sa.Column(name, sa.Double(), nullable=True))
    op.add_column("counts", sa.Column("embedding", sa.LargeBinary(), nullable=True))
    op.add_column("bins", sa.Column("photo_state", sa.String(length=10), nullable=True))
    op.add_column("bins", sa.Column("quantity_state", sa.String(length=10), nullable=True))
    op.create_table(
        "bin_totals",
        sa.Column("photo_state", sa.String(length=10), nullable=False),
        sa.Column("quantity_state", sa.String(length=10), nullable=False),
        sa.Column("bins", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("photo_state", "quantity_state"),
    )
    op.create_table(
        "audits",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("bin_id", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("auditor", sa.Text(), nullable=True),
        sa.Column("count_id", BIG_ID, nullable=True),
        sa.Column("expectation_id", BIG_ID, nullable=True),
        sa.Column("audited_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["count_id"], ["counts.id"]),
        sa.ForeignKeyConstraint(["expectation_id"], ["expectations.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_audits_bin", "audits", ["bucket", "bin_id"])
    op.create_table(
        "audit_totals",
        sa.Column("subject", sa.String(length=10), nullable=False),
        sa.Column("model_version", sa.String(length=100), nullable=False),
        sa.Column("audited_class", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("audits", sa.BigInteger(), nullable=False),
        sa.Column("within_one", sa.BigInteger(), nullable=False),
        sa.Column("absolute_error", sa.BigInteger(), nullable=False),
        sa.Column("squared_error", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("subject", "model_version", "audited_class", "outcome"),
    )
    for statement in (PHOTO_STATE, QUANTITY_STATE, BIN_TOTALS):
        op.execute(statement)
