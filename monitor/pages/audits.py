"""Pages to enter audits: the blind page of a bin, its form, and the switch that shows numbers."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import Connection

from binwatch.metadata import MAX_QUANTITY
from binwatch.records.audits import MAX_NOTE_LENGTH, AuditAnswer, StaleAudit, UnknownBin
from binwatch.records.draws import NothingToDraw
from binwatch.records.repeats import next_bin_to_audit
from binwatch.records.settle_bins import BinKey
from monitor.access.authentication import CurrentAuthenticator, ForeignForm, NotSignedIn, Writer
from monitor.access.cookies import delete_cookie, set_cookie
from monitor.access.negotiation import is_own_form
from monitor.access.proxies import root_path_of
from monitor.access.sight import SHOWN_COOKIE
from monitor.api.parameters import BinId, Bucket
from monitor.auditing import NewAudit, save, was_blind
from monitor.forms import Fields, FormProblem, local_path, redirect, validate, whole_number
from monitor.pages.bins import BIN_PAGE, BLIND_PAGE, bin_path, redirect_to_page
from monitor.pages.flash import FlashMessages
from monitor.pages.query import CurrentQuery, DiscrepancyQuery
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import render
from monitor.records import RecordsDown
from monitor.services import CurrentServices, Services
from monitor.views.bins import BinDetail, read_bin
from monitor.views.blind import without_numbers
from monitor.views.discrepancies import BinRef, Neighbours, read_neighbours, waiting_for_audit

router = APIRouter()

_PROBLEM_OF_ERROR: Final = {
    StaleAudit: FormProblem.STALE,
    UnknownBin: FormProblem.UNKNOWN_BIN,
    ForeignForm: FormProblem.FOREIGN,
}
"""Errors that the form explains to its sender."""
_PROBLEM_OF_FIELD: Final = {
    "answer": FormProblem.ANSWER,
    "at_least": FormProblem.AT_LEAST,
    "reason": FormProblem.ANSWER,
    "note": FormProblem.NOTE,
}


@router.get("/audit")
def start_auditing(
    request: Request, services: CurrentServices, context: RequestContext, query: CurrentQuery
) -> RedirectResponse:
    """Redirect to the most suspicious bin of the filter that nobody has audited, or to the login page."""
    is_blind = context.access.is_blind
    if context.access.must_sign_in and not context.access.sighted:
        return redirect(request, "/login", next=context.return_path)
    query = query.without_numbers if is_blind else query
    # A blind auditor's queue ignores the direction of the settings, which would reveal how its bins differ.
    filters = query.filters if is_blind else services.filters(query.filters)
    filters, alpha = waiting_for_audit(filters, context.access.name), services.alpha(query.level)
    neighbours = services.records.read(lambda connection: read_neighbours(connection, filters, alpha, "", ""))
    return RedirectResponse(root_path_of(request) + bin_path(query, neighbours.next, is_blind=is_blind), 303)


@router.get(BLIND_PAGE, response_class=HTMLResponse)
def blind_bin(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    query: CurrentQuery,
    flash: FlashMessages,
    bin_id: BinId,
    bucket: Bucket = None,
    random: Annotated[bool, Query(description="whether this bin and the next one are drawn at random")] = False,
) -> Response:
    """Show a bin's photo, the names of its articles and the form, without numbers."""
    writer = context.access.writer
    if context.access.must_sign_in:
        return redirect(request, "/login", next=context.return_path)
    query = query.without_numbers
    alpha, bucket = services.alpha(query.level), bucket or services.settings.bucket
    filters = waiting_for_audit(query.filters, context.access.name)

    def read(connection: Connection) -> tuple[BinDetail, Neighbours]:
        return read_bin(connection, bucket, bin_id, alpha), read_neighbours(connection, filters, alpha, bucket, bin_id)

    detail, neighbours = services.records.read(read)
    if writer is None or not context.access.is_blind or detail.was_answered_by(writer.name):
        return redirect_to_page(request, BIN_PAGE)
    bin_ = without_numbers(detail)
    return render(
        request,
        "audit.html",
        page="Discrepancies",
        context=context,
        flash=flash,
        query=query,
        bin=bin_,
        neighbours=neighbours,
        back_path=bin_path(query, BinRef(bucket=bucket, bin_id=bin_id), is_blind=True, random=random),
        random=random,
        next_path=bin_path(query, neighbours.next, is_blind=True),
        view=authenticator.view_token(writer, bucket, bin_.bin_id, bin_.photo.id if bin_.photo else None),
        numbers_were_shown=not authenticator.sight_tracker.may_audit_blind(request, bucket, bin_.bin_id),
        max_quantity=MAX_QUANTITY,
        max_note_length=MAX_NOTE_LENGTH,
    )


@router.post("/audits")
def enter_audit(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    fields: Fields,
) -> RedirectResponse:
    """Record an audit. Fields: bin, bucket, photo, view, answer, quantity, reason, note, csrf, next, back, random.

    `view` is the token of a blind view. Redirects to `next`, to a bin drawn at random if `random` is set, or to `back`
    if the audit was not saved.
    """
    back = local_path(fields.get("back"), "/discrepancies")
    try:
        writer = authenticator.require_writer(request)
        authenticator.check_form(writer, fields.get("csrf", ""))
        audit = _audit(fields)
        blind = was_blind(request, authenticator, writer, audit, services.settings.bucket)
        saved = save(services.writable, audit, writer, services.settings, blind=blind)
    except (NotSignedIn, StaleAudit, UnknownBin, ForeignForm, RequestValidationError) as error:
        if not is_own_form(request):
            raise
        if isinstance(error, NotSignedIn):
            return redirect(request, "/login", problem=FormProblem.SIGNED_OUT, next=back)
        return redirect(request, back, problem=_problem(error))
    next_path = local_path(fields.get("next"), back)
    if fields.get("random"):
        try:
            next_path = _draw_bin(services, writer, is_blind=context.access.is_blind)
        except (NothingToDraw, RecordsDown):  # the audit is saved even if the draw fails
            next_path = "/"
    return redirect(request, next_path, saved=saved.id)


@router.post("/sight")
def set_sight(request: Request, authenticator: CurrentAuthenticator, fields: Fields) -> RedirectResponse:
    """Show or hide numbers for a signed-in user. Fields: numbers (`show` or `hide`), csrf, next (redirect target)."""
    writer = authenticator.require_writer(request)
    authenticator.check_form(writer, fields.get("csrf", ""))
    response = redirect(request, local_path(fields.get("next"), "/discrepancies"))
    if fields.get("numbers") == "show":
        set_cookie(request, response, SHOWN_COOKIE, "show")
    else:
        delete_cookie(request, response, SHOWN_COOKIE)
    return response


@router.post("/audits/next")
def draw_next(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    fields: Fields,
) -> RedirectResponse:
    """Redirect to a bin drawn at random, or to one that tests a blind auditor.

    Fields: csrf; bin and bucket of the bin to skip, if any.
    """
    try:
        writer = authenticator.require_writer(request)
    except NotSignedIn:
        return redirect(request, "/login", next="/")
    authenticator.check_form(writer, fields.get("csrf", ""))
    bin_id = fields.get("bin")
    skipped = (fields.get("bucket") or services.settings.bucket, bin_id) if bin_id else None
    return redirect(request, _draw_bin(services, writer, is_blind=context.access.is_blind, skipped=skipped))


def _draw_bin(services: Services, writer: Writer, *, is_blind: bool, skipped: BinKey | None = None) -> str:
    """Choose a bin other than `skipped`, at random or as a test, and return its page's path. Raises NothingToDraw."""
    repeats = services.settings.audit_repeats if is_blind else 0.0
    drawn = services.writable.write(lambda engine: next_bin_to_audit(engine, writer.name, repeats, skipped=skipped))
    bin_ref = BinRef(bucket=drawn.bucket, bin_id=drawn.bin_id)
    return bin_path(DiscrepancyQuery(), bin_ref, is_blind=is_blind, random=True)


def _problem(error: Exception) -> FormProblem:
    if not isinstance(error, RequestValidationError):
        return _PROBLEM_OF_ERROR[type(error)]
    field = error.errors()[0]["loc"][-1]
    return _PROBLEM_OF_FIELD.get(str(field), FormProblem.QUANTITY)


def _audit(fields: dict[str, str]) -> NewAudit:
    quantity, photo = fields.get("quantity", "").strip(), fields.get("photo", "").strip()
    answer = fields.get("answer") or AuditAnswer.COUNT
    values = {
        "bin": fields.get("bin", ""),
        "bucket": fields.get("bucket") or None,
        "answer": answer,
        "quantity": whole_number(quantity),
        "reason": fields.get("reason") or None,
        "note": fields.get("note"),
        "photo": whole_number(photo, digits=18) if photo else None,
        "view": fields.get("view") or None,
    }
    if answer in (AuditAnswer.CANNOT_TELL, AuditAnswer.GO_AND_COUNT):
        if quantity:
            raise RequestValidationError(
                [{"loc": ("body", "answer"), "msg": f"{answer} has no number; leave it out", "type": "value_error"}]
            )
        del values["quantity"]
    if answer == AuditAnswer.AT_LEAST and values["quantity"] == 0:
        raise RequestValidationError(
            [{"loc": ("body", "at_least"), "msg": "at_least must be 1 or more", "type": "value_error"}]
        )
    return validate(NewAudit, values)
