"""Differences of bins without the cap at "more than 5", which is for the sums alone"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

WRONG = sa.text("difference <> 0")


def upgrade() -> None:
    op.drop_index("ix_current_error", "current_comparisons")
    op.drop_index("ix_current_wrong", "current_comparisons")
    # As SQL, since Alembic would have SQLite copy the whole table.
    op.execute("ALTER TABLE current_comparisons RENAME COLUMN error TO difference")
    # A count of "more than 5" agrees with such a quantity, and counts beyond it were never capped.
    op.execute("UPDATE current_comparisons SET difference = predicted - expected WHERE difference < 0 AND expected > 6")
    rank = ["doubt", "chance", "comparison_id"]
    op.create_index("ix_current_difference", "current_comparisons", ["difference", *rank])
    op.create_index(
        "ix_current_wrong",
        "current_comparisons",
        rank,
        postgresql_include=["audit_id"],
        postgresql_where=WRONG,
        sqlite_where=WRONG,
    )
