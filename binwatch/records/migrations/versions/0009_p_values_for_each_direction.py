"""P-values for each direction, and counts beyond 5

The p-values of before were of another score. They are made anew by `rank`, which workers call with each reconcile run,
once a worker has recorded the model's new calibration; until then bins are ranked by the probability of what is
expected.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("comparisons", "current_comparisons"):
        for name in ("p_missing", "p_surplus"):
            op.add_column(table, sa.Column(name, sa.Double(), nullable=True))
    op.add_column(
        "current_comparisons", sa.Column("doubt_one_sided", sa.Double(), nullable=False, server_default=sa.text("2"))
    )
    op.add_column("counts", sa.Column("distribution", sa.JSON(), nullable=True))
    # 2 is the doubt of bins whose count has no probabilities.
    op.execute(
        "UPDATE current_comparisons SET p_value = NULL,"
        " doubt = CASE WHEN doubt < 2 THEN 1 + chance ELSE 2 END,"
        " doubt_one_sided = CASE WHEN doubt < 2 THEN 1 + chance ELSE 2 END"
    )
    op.execute("UPDATE comparisons SET p_value = NULL WHERE p_value IS NOT NULL")
    op.execute("UPDATE models SET calibration = NULL, calibrated_at = NULL")
    op.execute(
        "INSERT INTO rank_totals (kind, bins, last_at) SELECT 'uncalibrated', 0, last_at FROM rank_totals"
        " WHERE kind = 'calibrated' AND NOT EXISTS (SELECT 1 FROM rank_totals WHERE kind = 'uncalibrated')"
    )
    op.execute(
        "UPDATE rank_totals SET bins = CASE kind WHEN 'calibrated' THEN 0 ELSE"
        " (SELECT count(*) FROM current_comparisons) END"
    )
    for name, sign in (("missing", "<"), ("surplus", ">")):
        where = sa.text(f"difference {sign} 0")
        op.create_index(
            f"ix_current_{name}",
            "current_comparisons",
            ["doubt_one_sided", "chance", "comparison_id"],
            postgresql_include=["audit_id"],
            postgresql_where=where,
            sqlite_where=where,
        )
