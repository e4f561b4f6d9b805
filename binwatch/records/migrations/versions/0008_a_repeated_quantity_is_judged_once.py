"""Audits judge a quantity on a photo once, however often the inventory said it"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# The sums as binwatch.records.audits keeps them from now on.
JUDGED = """
    SELECT {least}(e.quantity, 6) AS said, {least}(a.quantity, 6) AS truth, a.audited_at,
        row_number() OVER (PARTITION BY a.bucket, a.bin_id, e.quantity, c.key, c.etag ORDER BY a.id DESC) AS nth
    FROM audits a JOIN expectations e ON e.id = a.expectation_id LEFT JOIN counts c ON c.id = a.count_id
    WHERE e.quantity IS NOT NULL
"""
TOTALS = """
    INSERT INTO audit_totals (subject, model_version, audited_class, outcome, audits, within_one, absolute_error,
        squared_error, last_at)
    SELECT 'inventory', '', truth,
        CASE WHEN said = truth THEN 'exact' WHEN said < truth THEN 'under' ELSE 'over' END, count(*),
        sum(CASE WHEN abs(said - truth) <= 1 THEN 1 ELSE 0 END), sum(abs(said - truth)),
        sum((said - truth) * (said - truth)), max(audited_at)
    FROM ({judged}) AS judged WHERE nth = 1 GROUP BY 3, 4
"""


def upgrade() -> None:
    least = "least" if op.get_bind().dialect.name == "postgresql" else "min"
    op.execute("DELETE FROM audit_totals WHERE subject = 'inventory'")
    op.execute(TOTALS.format(judged=JUDGED.format(least=least)))
