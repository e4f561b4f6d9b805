"""One confusion matrix in place of three tables of sums

`comparison_totals` and the counts in `audit_totals` follow from `confusion_totals`, and stay as they are. What audits
say of the inventory is new there and is added up from the ledger: the last audit of each quantity on each photo.
"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# 6 is "more than 5".
AUDITS_OF_THE_INVENTORY = """
    INSERT INTO confusion_totals (reference, model_version, true_class, predicted_class, comparisons, last_at)
    SELECT 'audit', '', true_class, predicted_class, count(*), max(audited_at)
    FROM (
        SELECT audited_at,
            CASE WHEN audits.quantity > 5 THEN 6 ELSE audits.quantity END AS true_class,
            CASE WHEN expectations.quantity > 5 THEN 6 ELSE expectations.quantity END AS predicted_class,
            row_number() OVER (
                PARTITION BY audits.bucket, audits.bin_id, expectations.quantity, counts.key, counts.etag
                ORDER BY audits.id DESC
            ) AS place
        FROM audits
        JOIN expectations ON expectations.id = audits.expectation_id
        LEFT JOIN counts ON counts.id = audits.count_id
    ) AS judged
    WHERE place = 1
    GROUP BY true_class, predicted_class
"""


def upgrade() -> None:
    op.execute("ALTER TABLE confusion_totals RENAME COLUMN subject TO reference")
    op.execute("ALTER TABLE confusion_totals RENAME COLUMN predicted TO predicted_class")
    op.execute(AUDITS_OF_THE_INVENTORY)
    op.drop_table("audit_totals")
    op.drop_table("comparison_totals")
    for name in ("within_one", "absolute_error", "squared_error"):
        op.drop_column("comparison_hours", name)
