"""Indexes for the lists of failed photos, photos without quantity, and quantities without photo"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    rows = {
        "ix_counts_failed": ("counts", ["id"], "reason IS NOT NULL"),
        "ix_bins_without_quantity": (
            "bins",
            ["bin_id", "bucket"],
            "photo_state <> 'none' AND quantity_state <> 'known'",
        ),
        "ix_bins_without_photo": ("bins", ["bin_id", "bucket"], "photo_state = 'none' AND quantity_state = 'known'"),
    }
    for name, (table, columns, where) in rows.items():
        op.create_index(name, table, columns, postgresql_where=sa.text(where), sqlite_where=sa.text(where))
