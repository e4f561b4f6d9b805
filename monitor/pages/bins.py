"""The page of one bin, where audits are entered, and the way from one bin to the next."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection

from binwatch.metadata import MAX_QUANTITY
from monitor.access.proxies import root_of
from monitor.api.parameters import Bucket
from monitor.pages import query
from monitor.pages.flash import FlashMessages
from monitor.pages.query import DiscrepancyQuery, unaudited
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import html
from monitor.services import CurrentServices
from monitor.views.bins import BinDetail, read_bin
from monitor.views.discrepancies import BinRef, Neighbours, neighbours

router = APIRouter()

MAX_BIN = 1024

BinId = Annotated[str, Query(alias="id", min_length=1, max_length=MAX_BIN, description="id of a bin, as 00123")]


# The id is no part of the path: a bin may be called "..", and browsers would take that for the folder above.
@router.get("/bin", response_class=HTMLResponse)
def one_bin(
    request: Request,
    services: CurrentServices,
    context: RequestContext,
    wanted: query.CurrentQuery,
    flash: FlashMessages,
    bin_id: BinId,
    bucket: Bucket = None,
) -> HTMLResponse:
    """Everything about one bin, and the form to enter what is really in it."""
    alpha, of = services.alpha(wanted.level), bucket or services.settings.bucket
    filters = services.filters(wanted.filters)

    def read(connection: Connection) -> tuple[BinDetail, Neighbours, BinRef | None]:
        beside = neighbours(connection, filters, alpha, of, bin_id)
        onwards = beside.next
        if filters.audited is not False:  # then the next one may have been checked
            onwards = neighbours(connection, unaudited(filters), alpha, of, bin_id).next
        return read_bin(connection, of, bin_id, alpha, filters.direction.suspicion), beside, onwards

    detail, beside, onwards = services.records.read(read)
    return html(
        request,
        "bin.html",
        page="Discrepancies",
        context=context,
        flash=flash,
        asked=wanted,
        bin=detail,
        beside=beside,
        here=address(wanted, BinRef(bucket=of, bin_id=bin_id)),
        onwards=address(wanted, onwards),
        most=MAX_QUANTITY,
    )


@router.get("/audit")
def first(request: Request, services: CurrentServices, wanted: query.CurrentQuery) -> RedirectResponse:
    """To the worst bin of the filter that nobody has looked at."""
    alpha, filters = services.alpha(wanted.level), unaudited(services.filters(wanted.filters))
    beside = services.records.read(lambda connection: neighbours(connection, filters, alpha, "", ""))
    return RedirectResponse(root_of(request) + address(wanted, beside.next), 303)


def address(wanted: DiscrepancyQuery, of: BinRef | None) -> str:
    """Where a bin's page is within the monitor, and the list if there is no bin."""
    if of is None:
        return f"/discrepancies{wanted.query()}"
    return f"/bin{wanted.query(bucket=of.bucket, id=of.bin_id)}"
