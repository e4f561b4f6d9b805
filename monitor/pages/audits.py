"""Audits as people enter them: the view of a bin without numbers, the form, and whether numbers are shown."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import Connection

from binwatch.metadata import MAX_QUANTITY
from binwatch.records.audits import MAX_NOTE, AuditAnswer, StaleAudit, UnknownBin
from binwatch.records.draws import NothingToDraw
from binwatch.records.repeats import next_bin
from binwatch.records.settle_bins import BinKey
from monitor.access.authentication import CurrentAuthenticator, ForeignForm, NotSignedIn, Writer
from monitor.access.cookies import delete_cookie, set_cookie
from monitor.access.negotiation import is_own_form
from monitor.access.proxies import root_path_of
from monitor.access.sight import SHOWN_COOKIE
from monitor.api.parameters import BinId, Bucket
from monitor.auditing import NewAudit, save, was_blind
from monitor.forms import Fields, FormProblem, go, local, validated, whole_number
from monitor.pages import query
from monitor.pages.bins import PAGE, VIEW, address, the_other_view
from monitor.pages.flash import FlashMessages
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import html
from monitor.records import RecordsDown
from monitor.services import CurrentServices, Services
from monitor.views.bins import BinDetail, read_bin
from monitor.views.blind import without_numbers
from monitor.views.discrepancies import BinRef, Neighbours, read_neighbours, waiting_for_audit

router = APIRouter()

_ON_THE_FORM: Final = {
    StaleAudit: FormProblem.STALE,
    UnknownBin: FormProblem.UNKNOWN_BIN,
    ForeignForm: FormProblem.FOREIGN,
}
"""Errors that the sender of a form can correct in the form."""
_OF_FIELD: Final = {
    "answer": FormProblem.ANSWER,
    "at_least": FormProblem.AT_LEAST,
    "reason": FormProblem.ANSWER,
    "note": FormProblem.NOTE,
}


@router.get("/audit")
def first(
    request: Request, services: CurrentServices, context: RequestContext, wanted: query.CurrentQuery
) -> RedirectResponse:
    """Redirect to the worst bin of the filter that nobody has audited, or first to signing in."""
    if context.access.must_sign_in and not context.access.sighted:
        return go(request, "/login", next=context.here)
    asked = wanted.for_blind if context.access.is_blind else wanted
    # Not in the settings' direction: which bins wait for a blind auditor must not tell which way they differ.
    filters = waiting_for_audit(
        asked.filters if context.access.is_blind else services.filters(asked.filters), context.access.name
    )
    alpha = services.alpha(asked.level)
    beside = services.records.read(lambda connection: read_neighbours(connection, filters, alpha, "", ""))
    return RedirectResponse(root_path_of(request) + address(asked, beside.next, is_blind=context.access.is_blind), 303)


@router.get(VIEW, response_class=HTMLResponse)
def audit(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    wanted: query.CurrentQuery,
    flash: FlashMessages,
    bin_id: BinId,
    bucket: Bucket = None,
    random: Annotated[
        bool, Query(description="whether the bin was drawn at random, and the next one is to be")
    ] = False,
) -> Response:
    """A bin's photo and the names of its articles, and the form: no number before the answer."""
    writer = context.access.writer
    if context.access.must_sign_in:
        return go(request, "/login", next=context.here)
    asked = wanted.for_blind
    alpha, of = services.alpha(asked.level), bucket or services.settings.bucket
    filters = waiting_for_audit(asked.filters, context.access.name)

    def read(connection: Connection) -> tuple[BinDetail, Neighbours]:
        return read_bin(connection, of, bin_id, alpha), read_neighbours(connection, filters, alpha, of, bin_id)

    detail, beside = services.records.read(read)
    if writer is None or not context.access.is_blind or detail.was_answered_by(writer.name):
        return the_other_view(request, PAGE)
    bin_ = without_numbers(detail)
    return html(
        request,
        "audit.html",
        page="Discrepancies",
        context=context,
        flash=flash,
        asked=asked,
        bin=bin_,
        beside=beside,
        here=address(asked, BinRef(bucket=of, bin_id=bin_id), is_blind=True, random=random),
        random=random,
        onwards=address(asked, beside.next, is_blind=True),
        view=authenticator.view_token(writer, of, bin_.bin_id, bin_.photo.id if bin_.photo else None),
        was_seen=not authenticator.sight_tracker.may_audit_blind(request, of, bin_.bin_id),
        most=MAX_QUANTITY,
        longest=MAX_NOTE,
    )


@router.post("/audits")
def enter(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    fields: Fields,
) -> RedirectResponse:
    """Fields bin, bucket, photo, view, answer, quantity, reason, note, csrf; `next`: where to go; `back`: if it fails.

    `view` is the token of a view without numbers; with `random`, the next bin is drawn.
    """
    back = local(fields.get("back"), "/discrepancies")
    try:
        writer = authenticator.require_writer(request)
        authenticator.check_form(writer, fields.get("csrf", ""))
        entered, bucket = _audit(fields), services.settings.bucket
        blind = was_blind(request, authenticator, writer, entered, bucket)
        saved = save(services.writable, entered, writer, services.settings, blind=blind)
    except (NotSignedIn, StaleAudit, UnknownBin, ForeignForm, RequestValidationError) as error:
        if not is_own_form(request):
            raise
        if isinstance(error, NotSignedIn):
            return go(request, "/login", problem=FormProblem.SIGNED_OUT, next=back)
        return go(request, back, problem=_problem(error))
    onwards = local(fields.get("next"), back)
    if fields.get("random"):
        try:
            onwards = _drawn(services, writer, is_blind=context.access.is_blind)
        except (NothingToDraw, RecordsDown):  # the answer is saved, whatever becomes of the draw
            onwards = "/"
    return go(request, onwards, saved=saved.id)


@router.post("/sight")
def sight(request: Request, authenticator: CurrentAuthenticator, fields: Fields) -> RedirectResponse:
    """Fields numbers (`show` or `hide`), csrf; `next`: where to go. For people who are signed in."""
    writer = authenticator.require_writer(request)
    authenticator.check_form(writer, fields.get("csrf", ""))
    answer = go(request, local(fields.get("next"), "/discrepancies"))
    if fields.get("numbers") == "show":
        set_cookie(request, answer, SHOWN_COOKIE, "show")
    else:
        delete_cookie(request, answer, SHOWN_COOKIE)
    return answer


@router.post("/audits/next")
def draw_next(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    fields: Fields,
) -> RedirectResponse:
    """To a bin drawn at random, or one that tests a blind auditor. Field csrf; bin, bucket: the one skipped, if any."""
    try:
        writer = authenticator.require_writer(request)
    except NotSignedIn:
        return go(request, "/login", next="/")
    authenticator.check_form(writer, fields.get("csrf", ""))
    bin_id = fields.get("bin")
    skipped = (fields.get("bucket") or services.settings.bucket, bin_id) if bin_id else None
    return go(request, _drawn(services, writer, is_blind=context.access.is_blind, skipped=skipped))


def _drawn(services: Services, writer: Writer, *, is_blind: bool, skipped: BinKey | None = None) -> str:
    """Address of a bin that is drawn at random, but not of the one that is `skipped`. Raises NothingToDraw."""
    repeats = services.settings.audit_repeats if is_blind else 0.0
    drawn = services.writable.write(lambda engine: next_bin(engine, writer.name, repeats, skipped=skipped))
    of = BinRef(bucket=drawn.bucket, bin_id=drawn.bin_id)
    return address(query.DiscrepancyQuery(), of, is_blind=is_blind, random=True)


def _problem(error: Exception) -> FormProblem:
    if not isinstance(error, RequestValidationError):
        return _ON_THE_FORM[type(error)]
    where = error.errors()[0]["loc"][-1]
    return _OF_FIELD.get(str(where), FormProblem.QUANTITY)


def _audit(fields: dict[str, str]) -> NewAudit:
    quantity, photo = fields.get("quantity", "").strip(), fields.get("photo", "").strip()
    answer = fields.get("answer") or AuditAnswer.COUNT
    given = {
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
        del given["quantity"]
    if answer == AuditAnswer.AT_LEAST and given["quantity"] == 0:
        raise RequestValidationError(
            [{"loc": ("body", "at_least"), "msg": "at_least must be 1 or more", "type": "value_error"}]
        )
    return validated(NewAudit, given)
