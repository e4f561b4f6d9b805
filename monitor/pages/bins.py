"""The page of one bin with its numbers, and the paths of the pages of bins."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import Connection

from binwatch.metadata import MAX_QUANTITY
from binwatch.records.audits import MAX_NOTE_LENGTH
from monitor.access.authentication import CurrentAuthenticator
from monitor.access.proxies import root_path_of
from monitor.api.parameters import BinId, Bucket
from monitor.pages.flash import FlashMessages
from monitor.pages.query import CurrentQuery, DiscrepancyQuery
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import render
from monitor.services import CurrentServices
from monitor.views.bins import BinDetail, read_bin
from monitor.views.discrepancies import BinRef, Neighbours, read_neighbours, waiting_for_audit

router = APIRouter()

BIN_PAGE, BLIND_PAGE = "/bin", "/audit/bin"
"""Paths of the page of a bin with its numbers, and without them."""


# The id is a query parameter and not part of the path, since browsers resolve a bin called ".." to the parent folder.
@router.get(BIN_PAGE, response_class=HTMLResponse)
def show_bin(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    query: CurrentQuery,
    flash: FlashMessages,
    bin_id: BinId,
    bucket: Bucket = None,
) -> Response:
    """Show everything about one bin. A blind auditor is redirected to the blind page until they have answered.

    The form is shown to people who have answered or, if the settings say so, to everybody who is signed in.
    """
    alpha, bucket = services.alpha(query.level), bucket or services.settings.bucket
    filters = services.filters(query.filters)

    def read(connection: Connection) -> tuple[BinDetail, Neighbours, BinRef | None]:
        neighbours = read_neighbours(connection, filters, alpha, bucket, bin_id)
        next_bin = neighbours.next
        if filters.audited is not False:  # the next bin of the list may have been audited, so look for one that waits
            waiting = waiting_for_audit(filters.model_copy(update={"answer": None, "variance": None}))
            next_bin = read_neighbours(connection, waiting, alpha, bucket, bin_id).next
        return read_bin(connection, bucket, bin_id, alpha, filters.direction.suspicion), neighbours, next_bin

    detail, neighbours, next_bin = services.records.read(read)
    access = context.access
    has_answered = access.writer is not None and detail.was_answered_by(access.writer.name)
    if access.is_blind and not has_answered:
        return redirect_to_page(request, BLIND_PAGE)
    page = render(
        request,
        "bin.html",
        page="Discrepancies",
        context=context,
        flash=flash,
        query=query,
        bin=detail,
        neighbours=neighbours,
        back_path=bin_path(query, BinRef(bucket=bucket, bin_id=bin_id)),
        next_path=bin_path(query, next_bin, is_blind=access.is_blind),
        may_answer=access.writer is not None and (has_answered or access.sighted),
        view="",
        random=False,
        max_quantity=MAX_QUANTITY,
        max_note_length=MAX_NOTE_LENGTH,
    )
    authenticator.sight_tracker.note_shown(request, page, [(bucket, detail.bin_id)])
    return page


def bin_path(query: DiscrepancyQuery, bin_ref: BinRef | None, *, is_blind: bool = False, random: bool = False) -> str:
    """Return the path of a bin's page, or of the list if `bin_ref` is None.

    `is_blind` selects the page without numbers; `random` means that the bin was drawn at random.
    """
    if bin_ref is None:
        return f"/discrepancies{query.to_query_string()}"
    parameters = {"bucket": bin_ref.bucket, "id": bin_ref.bin_id, "random": 1 if random else None}
    return f"{BLIND_PAGE if is_blind else BIN_PAGE}{query.to_query_string(**parameters)}"


def redirect_to_page(request: Request, page: str) -> RedirectResponse:
    """Redirect to another page of the same bin. The query string is kept, since it may name the audit just saved."""
    return RedirectResponse(f"{root_path_of(request)}{page}?{request.url.query}", 303)
