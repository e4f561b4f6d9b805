"""The list of discrepancies as a CSV file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

from binwatch.records.audits import AuditAnswer
from binwatch.safe_csv import SafeCsvWriter
from monitor.views.discrepancies import Discrepancy, DiscrepancyPage, LastAudit

CHUNK_ROWS = 1_000
"""Rows read from the database per query."""
MAX_ROWS = 100_000
"""Maximum number of rows of a file. Scripts that need more rows read the API page by page."""
COLUMNS = (
    "bin", "bucket", "key", "photo_stored", "model", "count", "expected", "difference", "probability_of_expected",
    "p_value", "p_missing", "p_surplus", "flagged", "audited", "auditor", "audited_at", "answer", "at_least", "reason",
    "note", "blind",
)  # fmt: skip


def _csv_line(cells: tuple[object, ...]) -> str:
    text = io.StringIO()
    SafeCsvWriter(text).writerow(cells)
    return text.getvalue()


HEADER = _csv_line(COLUMNS)


def lines(first_page: DiscrepancyPage, read_page: Callable[[str | None], DiscrepancyPage]) -> Iterator[str]:
    """Yield the CSV lines of all bins, one page at a time; `read_page` reads the page after a cursor."""
    page, rows = first_page, 0
    while True:
        yield "".join(_csv_line(cells(bin_)) for bin_ in page.items[: MAX_ROWS - rows])
        rows += len(page.items)
        if page.next is None or rows >= MAX_ROWS:
            return
        page = read_page(page.next)


def cells(bin_: Discrepancy) -> tuple[object, ...]:
    """Return the cells of one bin, in the order of COLUMNS."""
    probabilities = (bin_.chance, bin_.p_value, bin_.p_missing, bin_.p_surplus)
    return (
        bin_.bin_id,
        bin_.bucket,
        bin_.key,
        bin_.photo_at.isoformat(),
        bin_.model,
        bin_.count,
        bin_.expected,
        bin_.difference,
        *("" if value is None else f"{value:.6g}" for value in probabilities),
        int(bin_.flagged),
        *(_audit_cells(bin_.audit) if bin_.audit else [""] * 8),
    )


def _audit_cells(audit: LastAudit) -> tuple[object, ...]:
    """Return the cells of an audit. A lower bound has its own column, so that it is not taken for the quantity."""
    quantity = "" if audit.quantity is None else audit.quantity
    return (
        quantity if audit.answer is AuditAnswer.COUNT else "",
        audit.auditor or "",
        audit.audited_at.isoformat(),
        audit.answer,
        quantity if audit.answer is AuditAnswer.AT_LEAST else "",
        audit.reason or "",
        audit.note or "",
        int(audit.blind),
    )
