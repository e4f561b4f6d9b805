"""Audits have an answer, a reason and a note, and say whether they were blind

Audits of before are counts by people who had the numbers in sight. Their sums are kept, under a name of their own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audits", sa.Column("answer", sa.String(20), nullable=False, server_default=sa.text("'count'")))
    op.add_column("audits", sa.Column("reason", sa.String(20), nullable=True))
    op.add_column("audits", sa.Column("note", sa.Text(), nullable=True))
    op.add_column("audits", sa.Column("blind", sa.Boolean(), nullable=False, server_default=sa.false()))
    if op.get_bind().dialect.name == "sqlite":
        # It cannot alter a column in place, and the copy of a table that others refer to would lose its rows.
        op.add_column("audits", sa.Column("found", sa.Integer(), nullable=True))
        op.execute("UPDATE audits SET found = quantity")
        op.drop_column("audits", "quantity")
        op.execute("ALTER TABLE audits RENAME COLUMN found TO quantity")
    else:
        op.alter_column("audits", "quantity", nullable=True)
    op.create_index("ix_audits_answer", "audits", ["answer", "id"])
    op.create_table(
        "audit_totals",
        sa.Column("answer", sa.String(20), primary_key=True),
        sa.Column("blind", sa.Boolean(), primary_key=True),
        sa.Column("audits", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.execute(
        "INSERT INTO audit_totals (answer, blind, audits, last_at)"
        " SELECT answer, blind, count(*), max(audited_at) FROM audits GROUP BY answer, blind"
    )
    op.execute("UPDATE confusion_totals SET reference = 'sighted' WHERE reference = 'audit'")
