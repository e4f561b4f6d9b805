"""The page of one bin, with all its numbers, and the way from one bin to the next."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import Connection

from binwatch.metadata import MAX_QUANTITY
from binwatch.records.audits import MAX_NOTE
from monitor.access.authentication import CurrentAuthenticator
from monitor.access.proxies import root_path_of
from monitor.api.parameters import BinId, Bucket
from monitor.pages import query
from monitor.pages.flash import FlashMessages
from monitor.pages.query import DiscrepancyQuery
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import html
from monitor.services import CurrentServices
from monitor.views.bins import BinDetail, read_bin
from monitor.views.discrepancies import BinRef, Neighbours, read_neighbours, waiting_for_audit

router = APIRouter()

PAGE, VIEW = "/bin", "/audit/bin"
"""A bin with its numbers, and without."""


# The id is no part of the path: a bin may be called "..", and browsers would take that for the folder above.
@router.get(PAGE, response_class=HTMLResponse)
def one_bin(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    wanted: query.CurrentQuery,
    flash: FlashMessages,
    bin_id: BinId,
    bucket: Bucket = None,
) -> Response:
    """Everything about one bin. A blind auditor is led to the view without numbers, and back once it is answered.

    The form is there for those who have answered, and by the settings for everybody who is signed in.
    """
    alpha, of = services.alpha(wanted.level), bucket or services.settings.bucket
    filters = services.filters(wanted.filters)

    def read(connection: Connection) -> tuple[BinDetail, Neighbours, BinRef | None]:
        beside = read_neighbours(connection, filters, alpha, of, bin_id)
        onwards = beside.next
        if filters.audited is not False:  # then the next one may have been checked
            onwards = read_neighbours(
                connection,
                waiting_for_audit(filters.model_copy(update={"answer": None, "variance": None})),
                alpha,
                of,
                bin_id,
            ).next
        return read_bin(connection, of, bin_id, alpha, filters.direction.suspicion), beside, onwards

    detail, beside, onwards = services.records.read(read)
    access, here = context.access, BinRef(bucket=of, bin_id=bin_id)
    answered = access.writer is not None and detail.was_answered_by(access.writer.name)
    if access.is_blind and not answered:
        return the_other_view(request, VIEW)
    page = html(
        request,
        "bin.html",
        page="Discrepancies",
        context=context,
        flash=flash,
        asked=wanted,
        bin=detail,
        beside=beside,
        here=address(wanted, here),
        onwards=address(wanted, onwards, is_blind=access.is_blind),
        may_answer=access.writer is not None and (answered or access.sighted),
        view="",
        random=False,
        most=MAX_QUANTITY,
        longest=MAX_NOTE,
    )
    authenticator.sight_tracker.note_shown(request, page, [(of, detail.bin_id)])
    return page


def address(wanted: DiscrepancyQuery, of: BinRef | None, *, is_blind: bool = False, random: bool = False) -> str:
    """Path of a bin's page, or of its view for blind auditors; that of the list if there is no bin.

    `random`: it was drawn at random.
    """
    if of is None:
        return f"/discrepancies{wanted.query()}"
    drawn = 1 if random else None
    return f"{VIEW if is_blind else PAGE}{wanted.query(bucket=of.bucket, id=of.bin_id, random=drawn)}"


def the_other_view(request: Request, path: str) -> RedirectResponse:
    """Redirect to the same bin with its numbers, or without. The query is kept: it names the audit that was saved."""
    return RedirectResponse(f"{root_path_of(request)}{path}?{request.url.query}", 303)
