"""Lists as files: the same rows as on the pages and in the API, written by the writers of `binwatch check`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from binwatch.documents import Cell, Document, Sheet
from binwatch.documents.writers import write
from binwatch.text import many, visible
from monitor.records import Records
from monitor.views.auditors import read_auditors
from monitor.views.blind import QueuedBin, read_queue
from monitor.views.discrepancies import Filters, read_discrepancies
from monitor.views.discrepancies_csv import CHUNK_ROWS, COLUMNS, MAX_ROWS, cells
from monitor.views.lists import LISTS, TITLES, ListFilters, ListName, read_list

ON_TERMINAL = {
    ListName.FAILED: ("bin_id", "key", "photo_at", "reason", "remedy"),
    ListName.WITHOUT_QUANTITY: ("bin_id", "key", "photo_at", "count", "quantity_reason"),
    ListName.WITHOUT_PHOTO: ("bin_id", "expected", "expected_at", "source"),
    ListName.VARIANCES: ("bin_id", "id", "state", "expected", "quantity", "opened_at", "closed_by"),
}
"""The columns of a list that there is room for on a terminal."""
AUDITORS = (
    "auditor", "counted_twice", "known_quantities",
    *(f"{share}{end}" for share in ("accuracy", "as_others", "as_others_within_one", "right", "right_within_one")
      for end in ("", "_low", "_high")),
)  # fmt: skip
AUDITORS_ON_TERMINAL = (*AUDITORS[:6], "as_others", "right")
DISCREPANCIES_ON_TERMINAL = ("bin", "count", "expected", "difference", "p_value", "flagged", "audited", "photo_stored")


def list_document(records: Records, name: ListName, filters: ListFilters) -> Document:
    """A list, at most MAX_ROWS rows of it. The columns are the fields of the API."""
    listing = LISTS[name]
    found = _items(records, partial(read_list, listing=listing, filters=filters, limit=CHUNK_ROWS))
    return _document(TITLES[name], name, listing.row.model_fields, (one.model_dump().values() for one in found))


def discrepancies_document(records: Records, filters: Filters, alpha: float) -> Document:
    """The discrepancies in the order of their ranking, at most MAX_ROWS. The columns are those of the CSV."""
    found = _items(records, partial(read_discrepancies, filters=filters, alpha=alpha, limit=CHUNK_ROWS))
    return _document("Discrepancies", "discrepancies", COLUMNS, map(cells, found))


def queue_document(records: Records, filters: Filters, alpha: float, limit: int) -> Document:
    """The first bins that wait for an audit, without any number."""
    found = records.read(lambda connection: read_queue(connection, filters, alpha, limit))
    rows = (one.model_dump().values() for one in found)
    return _document("Bins to audit", "audits", QueuedBin.model_fields, rows)


def auditors_document(records: Records) -> Document:
    """How often each auditor is right. Shares of 0 to 1; empty where there is nothing to compare with."""
    rows = []
    for one in records.read(read_auditors).items:
        of = [one.others, one.known]
        shares = [
            one.accuracy,
            *(share for each in of for share in ([each.exact, each.within_one] if each else [None] * 2)),
        ]
        numbers = [[share.share, share.interval.low, share.interval.high] if share else [None] * 3 for share in shares]
        answers = [each.exact.audits if each else 0 for each in of]
        rows.append((one.auditor, *answers, *(number for three in numbers for number in three)))
    return _document("Auditors", "auditors", AUDITORS, rows)


def as_bytes(document: Document, suffix: str) -> bytes:
    """The file of a document with one sheet."""
    with TemporaryDirectory() as folder:
        (file,) = write(document, Path(folder) / f"list{suffix}")
        return file.read_bytes()


def _items(records: Records, read: Callable[..., Any]) -> Iterator[Any]:
    """The items of all pages of a list: one read for each page, since no read of the records may take long."""
    page = records.read(read)
    yield from page.items
    while page.next is not None:
        page = records.read(partial(read, after=page.next))
        yield from page.items


def _document(title: str, slug: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Document:
    written = [tuple(map(_cell, row)) for row in islice(rows, MAX_ROWS)]
    is_cut = len(written) == MAX_ROWS
    summary = [many(len(written), "row") + (", which is the limit of a file: there may be more" if is_cut else "")]
    return Document(title, summary, [Sheet(title, slug, tuple(columns), written)])


def _cell(value: object) -> Cell:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return int(value)
    return visible(value) if isinstance(value, str) else value  # type: ignore[return-value]
