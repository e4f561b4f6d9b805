"""Pages of the lists behind the overview's numbers: failed photos, incomplete bins, and variances."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from binwatch.errors import Reason
from binwatch.records.variances import VarianceState
from monitor import formatting
from monitor.access.authentication import CurrentAuthenticator, NumbersHidden
from monitor.pages import sentences
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import render
from monitor.services import CurrentServices
from monitor.views.discrepancies import MAX_PREFIX_LENGTH
from monitor.views.lists import LISTS, MAX_CURSOR_LENGTH, TITLES, ListName, read_list

router = APIRouter()

PAGE_SIZE = 50
"""Rows per page."""

Cursor = Annotated[str | None, Query(max_length=MAX_CURSOR_LENGTH)]
Cell = str | int | datetime | None

INTRODUCTIONS = {
    ListName.FAILED: "Photos that could not be counted, by any model, with the reason and a remedy. A photo that is"
    " counted later leaves the list.",
    ListName.WITHOUT_QUANTITY: "Bins that have a photo, but no expected quantity to compare its count with.",
    ListName.WITHOUT_PHOTO: "Bins that the inventory expects something of, and that no photo shows.",
    ListName.VARIANCES: "Bins where somebody found another number than the inventory expects. Another person counts"
    " again, and an approver decides. The inventory is to take those that are approved.",
}


_FAILURE_REASONS = {reason.value: formatting.reason(reason) for reason in Reason}


class _Column(NamedTuple):
    """A column of a list's table."""

    heading: str
    cell: Callable[[Any], Cell]


_COLUMNS: dict[ListName, list[_Column]] = {
    ListName.FAILED: [
        _Column("Photo", lambda row: row.key),
        _Column("Reason", lambda row: formatting.reason(row.reason)),
        _Column("Detail", lambda row: row.detail),
        _Column("What to do", lambda row: row.remedy),
        _Column("Model", lambda row: row.model),
        _Column("Stored", lambda row: row.photo_at),
        _Column("Latest of its bin", lambda row: "yes" if row.latest else "no"),
    ],
    ListName.WITHOUT_QUANTITY: [
        _Column("Photo", lambda row: row.key),
        _Column("Stored", lambda row: row.photo_at),
        _Column("Counted", lambda row: row.count if row.reason is None else formatting.reason(row.reason)),
        _Column("Metadata file", lambda row: row.quantity_file),
        _Column(
            "Why no quantity",
            lambda row: formatting.reason(row.quantity_reason) if row.quantity_reason else "no metadata file",
        ),
        _Column("Detail", lambda row: row.quantity_detail),
    ],
    ListName.WITHOUT_PHOTO: [
        _Column("Expected", lambda row: row.expected),
        _Column("As of", lambda row: row.expected_at),
        _Column("Source", lambda row: row.source),
        _Column("Articles", lambda row: row.articles),
    ],
    ListName.VARIANCES: [
        _Column("State", lambda row: sentences.VARIANCE_STATES[row.state]),
        _Column("Expected", lambda row: row.expected),
        _Column("Found", lambda row: row.quantity),
        _Column("Opened", lambda row: row.opened_at),
        _Column("Closed", lambda row: row.closed_at),
        _Column("By", lambda row: row.closed_by),
        _Column("Note", lambda row: row.note),
    ],
}


class _Row(NamedTuple):
    """A row of a list's table."""

    bucket: str
    bin_id: str
    cells: list[Cell]


@router.get("/lists/{name}", response_class=HTMLResponse)
def show_list(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    name: ListName,
    prefix: Annotated[str, Query(max_length=MAX_PREFIX_LENGTH)] = "",
    reason: Annotated[str, Query(max_length=40)] = "",
    model: Annotated[str, Query(max_length=100)] = "",
    state: Annotated[VarianceState | Literal[""], Query()] = "",
    after: Cursor = None,
    before: Cursor = None,
) -> HTMLResponse:
    """Show one list with its filter and downloads."""
    if name.has_numbers and context.access.is_blind:
        raise NumbersHidden
    listing = LISTS[name]
    parameters = {"prefix": prefix, "reason": reason, "model": model, "state": state}
    # Forms also send their empty fields.
    query = {key: value for key, value in parameters.items() if value and key in listing.filters.model_fields}
    filters = listing.filters(**query)
    rows = services.records.read(lambda connection: read_list(connection, listing, filters, PAGE_SIZE, after, before))
    columns = _COLUMNS[name]
    page = render(
        request,
        "list.html",
        page="Overview",  # the page that links here
        context=context,
        name=name.value,
        title=TITLES[name],
        introduction=INTRODUCTIONS[name],
        columns=[column.heading for column in columns],
        rows=[_Row(item.bucket, item.bin_id, [column.cell(item) for column in columns]) for item in rows.items],
        next_cursor=rows.next,
        previous_cursor=rows.previous,
        query=query,
        export_query=f"?{urlencode(query)}" if query else "",
        failure_reasons=_FAILURE_REASONS if name is ListName.FAILED else {},
        variance_states=sentences.VARIANCE_STATES if name is ListName.VARIANCES else {},
    )
    if name.has_numbers:
        authenticator.sight_tracker.note_shown(request, page, [(item.bucket, item.bin_id) for item in rows.items])
    return page
