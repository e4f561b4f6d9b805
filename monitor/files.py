"""Lists as files: the same rows as on the pages and in the API, written by the writers of `binwatch check`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from binwatch.documents import Cell, Document, Sheet
from binwatch.documents.writers import write
from binwatch.text import many, visible
from monitor.records import Records
from monitor.views import discrepancies_csv
from monitor.views.auditors import read_auditors
from monitor.views.blind import QueuedBin, read_queue
from monitor.views.discrepancies import DiscrepancyPage, Filters, read_discrepancies
from monitor.views.lists import LISTS, TITLES, ListFilters, ListName, ListPage, read_list

MOST_ROWS = discrepancies_csv.MOST_ROWS
"""Rows of a file. A script that needs more reads the API page by page."""
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
    """A list, at most MOST_ROWS rows of it. The columns are the fields of the API."""
    listing = LISTS[name]

    def part(after: str | None) -> ListPage[Any]:
        return records.read(
            lambda connection: read_list(connection, listing, filters, discrepancies_csv.ROWS_AT_A_TIME, after)
        )

    rows = [tuple(map(_cell, item.model_dump().values())) for item in islice(_items(part), MOST_ROWS)]
    return _document(TITLES[name], name, tuple(listing.row.model_fields), rows)


def discrepancies_document(records: Records, filters: Filters, alpha: float) -> Document:
    """The discrepancies in the order of their ranking, at most MOST_ROWS. The columns are those of the CSV."""

    def part(after: str | None) -> DiscrepancyPage:
        return records.read(
            lambda connection: read_discrepancies(connection, filters, alpha, discrepancies_csv.ROWS_AT_A_TIME, after)
        )

    rows = [tuple(map(_cell, discrepancies_csv.cells(item))) for item in islice(_items(part), MOST_ROWS)]
    return _document("Discrepancies", "discrepancies", discrepancies_csv.COLUMNS, rows)


def queue_document(records: Records, filters: Filters, alpha: float, limit: int) -> Document:
    """The first bins that wait for an audit, without any number."""
    found = records.read(lambda connection: read_queue(connection, filters, alpha, limit))
    columns = tuple(QueuedBin.model_fields)
    return _document(
        "Bins to audit", "audits", columns, [tuple(map(_cell, one.model_dump().values())) for one in found]
    )


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
        rows.append((_cell(one.auditor), *answers, *(number for three in numbers for number in three)))
    return _document("Auditors", "auditors", AUDITORS, rows)


def as_bytes(document: Document, suffix: str) -> bytes:
    """The file of a document with one sheet."""
    with TemporaryDirectory() as folder:
        (file,) = write(document, Path(folder) / f"list{suffix}")
        return file.read_bytes()


def _items(part: Callable[[str | None], Any]) -> Iterator[Any]:
    page = part(None)
    yield from page.items
    while page.next is not None:
        page = part(page.next)
        yield from page.items


def _document(title: str, slug: str, columns: Sequence[str], rows: list[tuple[Cell, ...]]) -> Document:
    is_cut = len(rows) == MOST_ROWS
    summary = [many(len(rows), "row") + (", which is the limit of a file: there may be more" if is_cut else "")]
    return Document(title, summary, [Sheet(title, slug, columns, rows)])


def _cell(value: object) -> Cell:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return int(value)
    return visible(value) if isinstance(value, str) else value  # type: ignore[return-value]
