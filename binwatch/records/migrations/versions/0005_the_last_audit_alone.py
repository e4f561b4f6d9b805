"""Of audits that were corrected, the last one alone is in the sums"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# The sums as binwatch.records.audits keeps them from now on: the last audit of each count, and the last one of each
# expected quantity on each photo.
FORGET = ("DELETE FROM audit_totals", "DELETE FROM confusion_totals WHERE subject = 'audit'")
OF_COUNTS = """
    SELECT c.model_version, c.predicted AS said, {least}(a.quantity, 6) AS truth, a.audited_at,
        row_number() OVER (PARTITION BY a.count_id ORDER BY a.id DESC) AS nth
    FROM audits a JOIN counts c ON c.id = a.count_id WHERE c.predicted IS NOT NULL
"""
OF_INVENTORY = """
    SELECT '' AS model_version, {least}(e.quantity, 6) AS said, {least}(a.quantity, 6) AS truth, a.audited_at,
        row_number() OVER (PARTITION BY a.expectation_id, c.key, c.etag ORDER BY a.id DESC) AS nth
    FROM audits a JOIN expectations e ON e.id = a.expectation_id LEFT JOIN counts c ON c.id = a.count_id
    WHERE e.quantity IS NOT NULL
"""
TOTALS = """
    INSERT INTO audit_totals (subject, model_version, audited_class, outcome, audits, within_one, absolute_error,
        squared_error, last_at)
    SELECT '{subject}', model_version, truth,
        CASE WHEN said = truth THEN 'exact' WHEN said < truth THEN 'under' ELSE 'over' END, count(*),
        sum(CASE WHEN abs(said - truth) <= 1 THEN 1 ELSE 0 END), sum(abs(said - truth)),
        sum((said - truth) * (said - truth)), max(audited_at)
    FROM ({judged}) AS judged WHERE nth = 1 GROUP BY 2, 3, 4
"""
CONFUSION = """
    INSERT INTO confusion_totals (subject, model_version, true_class, predicted, comparisons, last_at)
    SELECT 'audit', model_version, truth, said, count(*), max(audited_at)
    FROM ({judged}) AS judged WHERE nth = 1 GROUP BY 2, 3, 4
"""


def upgrade() -> None:
    least = "least" if op.get_bind().dialect.name == "postgresql" else "min"
    counts, inventory = OF_COUNTS.format(least=least), OF_INVENTORY.format(least=least)
    for statement in FORGET:
        op.execute(statement)
    op.execute(TOTALS.format(subject="count", judged=counts))
    op.execute(TOTALS.format(subject="inventory", judged=inventory))
    op.execute(CONFUSION.format(judged=counts))
