"""Lists as documents, with the same rows as on the pages and in the API. They use the writers of `binwatch check`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from binwatch.documents import Cell, Document, Sheet
from binwatch.documents.writers import write_document
from binwatch.text import count_noun, escape_unprintable
from monitor.estimates import ShareEstimate
from monitor.records import Records
from monitor.views.auditors import read_auditors
from monitor.views.blind import QueuedBin, read_queue
from monitor.views.discrepancies import Filters, read_discrepancies
from monitor.views.discrepancies_csv import CHUNK_ROWS, COLUMNS, MAX_ROWS, cells
from monitor.views.lists import LISTS, TITLES, ListFilters, ListName, read_list

LIST_TERMINAL_COLUMNS = {
    ListName.FAILED: ("bin_id", "key", "photo_at", "reason", "remedy"),
    ListName.WITHOUT_QUANTITY: ("bin_id", "key", "photo_at", "count", "quantity_reason"),
    ListName.WITHOUT_PHOTO: ("bin_id", "expected", "expected_at", "source"),
    ListName.VARIANCES: ("bin_id", "id", "state", "expected", "quantity", "opened_at", "closed_by"),
}
"""The columns of each list that fit on a terminal."""
AUDITOR_COLUMNS = (
    "auditor", "counted_twice", "known_quantities",
    *(f"{share}{end}" for share in ("accuracy", "as_others", "as_others_within_one", "right", "right_within_one")
      for end in ("", "_low", "_high")),
)  # fmt: skip
AUDITOR_TERMINAL_COLUMNS = (*AUDITOR_COLUMNS[:6], "as_others", "right")
DISCREPANCY_TERMINAL_COLUMNS = (
    "bin",
    "count",
    "expected",
    "difference",
    "p_value",
    "flagged",
    "audited",
    "photo_stored",
)


def list_document(records: Records, name: ListName, filters: ListFilters) -> Document:
    """Read a list, at most MAX_ROWS rows. The columns are the fields of the API."""
    listing = LISTS[name]
    items = _items(records, partial(read_list, listing=listing, filters=filters, limit=CHUNK_ROWS))
    return _document(TITLES[name], name, listing.item.model_fields, (item.model_dump().values() for item in items))


def discrepancies_document(records: Records, filters: Filters, alpha: float) -> Document:
    """Read the discrepancies in the order of their rank, at most MAX_ROWS. The columns are those of the CSV."""
    items = _items(records, partial(read_discrepancies, filters=filters, alpha=alpha, limit=CHUNK_ROWS))
    return _document("Discrepancies", "discrepancies", COLUMNS, map(cells, items))


def queue_document(records: Records, filters: Filters, alpha: float, limit: int) -> Document:
    """Read the first bins that wait for an audit, without their counts and expected quantities."""
    bins = records.read(lambda connection: read_queue(connection, filters, alpha, limit))
    rows = (bin_.model_dump().values() for bin_ in bins)
    return _document("Bins to audit", "audits", QueuedBin.model_fields, rows)


def auditors_document(records: Records) -> Document:
    """Read each auditor's agreement and accuracy. Shares are 0 to 1, and empty if there is nothing to compare with."""
    rows = []
    for auditor in records.read(read_auditors).items:
        agreements = [auditor.others, auditor.known]
        estimates: list[ShareEstimate | None] = [auditor.accuracy]
        for agreement in agreements:
            estimates += [agreement.exact, agreement.within_one] if agreement else [None, None]
        values = [
            value
            for estimate in estimates
            for value in (
                (estimate.share, estimate.interval.low, estimate.interval.high) if estimate else (None, None, None)
            )
        ]
        answers = [agreement.exact.audits if agreement else 0 for agreement in agreements]
        rows.append((auditor.auditor, *answers, *values))
    return _document("Auditors", "auditors", AUDITOR_COLUMNS, rows)


def as_bytes(document: Document, suffix: str) -> bytes:
    """Return a document with one sheet as the bytes of a file."""
    with TemporaryDirectory() as folder:
        (file,) = write_document(document, Path(folder) / f"list{suffix}")
        return file.read_bytes()


def _items(records: Records, read: Callable[..., Any]) -> Iterator[Any]:
    """Yield the items of all pages of a list. Each page is a read of its own, because reads have a deadline."""
    page = records.read(read)
    yield from page.items
    while page.next is not None:
        page = records.read(partial(read, after=page.next))
        yield from page.items


def _document(title: str, slug: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Document:
    sheet_rows = [tuple(map(_cell, row)) for row in islice(rows, MAX_ROWS)]
    is_truncated = len(sheet_rows) == MAX_ROWS
    summary = [
        count_noun(len(sheet_rows), "row")
        + (", which is the limit of a file: there may be more" if is_truncated else "")
    ]
    return Document(title, summary, [Sheet(title, slug, tuple(columns), sheet_rows)])


def _cell(value: object) -> Cell:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return int(value)
    return escape_unprintable(value) if isinstance(value, str) else value  # type: ignore[return-value]
