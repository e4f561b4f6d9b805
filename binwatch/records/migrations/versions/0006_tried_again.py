"""When it was last tried in vain to fetch a photo or metadata file"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("counts", "expectations"):
        op.add_column(table, sa.Column("tried_at", sa.DateTime(timezone=True)))
