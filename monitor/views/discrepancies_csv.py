"""The list of discrepancies as CSV, for a spreadsheet."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

from binwatch.records.audits import AuditAnswer
from binwatch.safe_csv import SafeCsvWriter
from monitor.views.discrepancies import AuditSaid, Discrepancy, DiscrepancyPage

ROWS_AT_A_TIME = 1_000
MOST_ROWS = 100_000
"""Rows of a file. A script that needs more reads the API page by page."""
COLUMNS = (
    "bin", "bucket", "key", "photo_stored", "model", "count", "expected", "difference", "probability_of_expected",
    "p_value", "p_missing", "p_surplus", "flagged", "audited", "auditor", "audited_at", "answer", "at_least", "reason",
    "note", "blind",
)  # fmt: skip


def _line(cells: tuple[object, ...]) -> str:
    text = io.StringIO()
    SafeCsvWriter(text).writerow(cells)
    return text.getvalue()


HEADER = _line(COLUMNS)


def lines(first: DiscrepancyPage, part: Callable[[str | None], DiscrepancyPage]) -> Iterator[str]:
    """Lines of all bins, a page at a time: the page `first`, then the pages that `part` returns for each cursor."""
    page, rows = first, 0
    while True:
        yield "".join(_line(cells(one)) for one in page.items[: MOST_ROWS - rows])
        rows += len(page.items)
        if page.next is None or rows >= MOST_ROWS:
            return
        page = part(page.next)


def cells(one: Discrepancy) -> tuple[object, ...]:
    """One bin, in the order of COLUMNS."""
    said = one.audit
    return (
        one.bin_id,
        one.bucket,
        one.key,
        one.photo_at.isoformat(),
        one.model,
        one.count,
        one.expected,
        one.difference,
        *("" if share is None else f"{share:.6g}" for share in (one.chance, one.p_value, one.p_missing, one.p_surplus)),
        int(one.flagged),
        *(_audit(said) if said else [""] * 8),
    )


def _audit(said: AuditSaid) -> tuple[object, ...]:
    """A number that is a lower bound has a column of its own, so that it is not taken for the quantity."""
    quantity = "" if said.quantity is None else said.quantity
    return (
        quantity if said.answer is AuditAnswer.COUNT else "",
        said.auditor or "",
        said.audited_at.isoformat(),
        said.answer,
        quantity if said.answer is AuditAnswer.AT_LEAST else "",
        said.reason or "",
        said.note or "",
        int(said.blind),
    )
