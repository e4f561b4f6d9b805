"""Counts by model, for random draws after a change of model"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

COUNTED = sa.text("predicted IS NOT NULL")


def upgrade() -> None:
    op.create_index(
        "ix_counts_model", "counts", ["model_version", "id"], postgresql_where=COUNTED, sqlite_where=COUNTED
    )
