"""Variances, the steps of each, and how many there are in each state"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    text = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")
    op.create_table(
        "variances",
        sa.Column("id", big_id, primary_key=True),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("bin_id", text, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("expected", sa.Integer(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
    )
    op.create_index("ix_variances_bin", "variances", ["bucket", "bin_id", "id"])
    op.create_index("ix_variances_state", "variances", ["state", "id"])
    undecided = sa.text("closed_at IS NULL")
    op.create_index(
        "ux_variances_undecided",
        "variances",
        ["bucket", "bin_id"],
        unique=True,
        postgresql_where=undecided,
        sqlite_where=undecided,
    )
    op.create_table(
        "variance_trail",
        sa.Column("id", big_id, primary_key=True),
        sa.Column("variance_id", big_id, sa.ForeignKey("variances.id"), nullable=False),
        sa.Column("step", sa.String(10), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=True),
        sa.Column("person", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("audit_id", big_id, sa.ForeignKey("audits.id"), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_variance_trail_variance", "variance_trail", ["variance_id", "id"])
    op.create_table(
        "variance_totals",
        sa.Column("state", sa.String(10), primary_key=True),
        sa.Column("variances", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
    )
