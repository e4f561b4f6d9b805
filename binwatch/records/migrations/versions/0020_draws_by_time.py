"""Random draws by time: the last ones are found by an index"""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_audit_draws_drawn_at", "audit_draws", ["drawn_at", "id"])
