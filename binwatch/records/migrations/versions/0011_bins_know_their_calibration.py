"""Bins know the calibration that they were judged by

So that a new one reaches them. By which one a bin was judged before is not known: `rank`, which workers call with each
reconcile run, judges all bins of calibrated models once more.

Bins of whose expected quantity the model says nothing had the doubt of those that it is certain of.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    none = sa.text("0")
    op.add_column("models", sa.Column("calibrations", sa.Integer(), nullable=False, server_default=none))
    op.execute("UPDATE models SET calibrations = 1 WHERE calibrated_at IS NOT NULL")
    op.add_column("current_comparisons", sa.Column("calibration", sa.Integer(), nullable=False, server_default=none))
    op.execute(
        "UPDATE current_comparisons SET doubt = 3, doubt_one_sided = 3 WHERE doubt >= 2 AND p_value IS NULL AND EXISTS"
        " (SELECT 1 FROM comparisons WHERE comparisons.id = comparison_id AND comparisons.chance IS NULL)"
    )
    op.create_index("ix_current_calibration", "current_comparisons", ["model_version", "calibration", "comparison_id"])
