"""Audits as people enter them on a bin's page."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from binwatch.records.audits import StaleAudit, UnknownBin
from monitor.access.authentication import CurrentAuthenticator, ForeignForm, NotSignedIn
from monitor.access.negotiation import sent_a_form
from monitor.auditing import NewAudit, save
from monitor.forms import Fields, FormProblem, go, local
from monitor.services import CurrentServices

router = APIRouter()

_ON_THE_FORM: Final = {
    StaleAudit: FormProblem.STALE,
    UnknownBin: FormProblem.UNKNOWN_BIN,
    ForeignForm: FormProblem.FOREIGN,
    RequestValidationError: FormProblem.QUANTITY,
}
"""What whoever sent the form can mend there."""


@router.post("/audits")
def enter(
    request: Request, services: CurrentServices, authenticator: CurrentAuthenticator, fields: Fields
) -> RedirectResponse:
    """Fields bin, bucket, quantity, photo, csrf; `next`: where to go; `back`: where to go if it fails."""
    back = local(fields.get("back"), "/discrepancies")
    try:
        writer = authenticator.require_writer(request)
        authenticator.check_form(writer, fields.get("csrf", ""))
        saved = save(services.writable, _audit(fields), writer, services.settings.bucket)
    except (NotSignedIn, StaleAudit, UnknownBin, ForeignForm, RequestValidationError) as error:
        if not sent_a_form(request):
            raise
        if isinstance(error, NotSignedIn):
            return go(request, "/login", problem=FormProblem.SIGNED_OUT, next=back)
        return go(request, back, problem=_ON_THE_FORM[type(error)])
    return go(request, local(fields.get("next"), back), saved=saved.id)


def _audit(fields: dict[str, str]) -> NewAudit:
    """A number that is none is judged as it is, so that the error says what was wrong."""
    quantity, photo = fields.get("quantity", "").strip(), fields.get("photo", "").strip()
    given = {
        "bin": fields.get("bin", ""),
        "bucket": fields.get("bucket") or None,
        "quantity": int(quantity) if quantity.isascii() and quantity.isdigit() and len(quantity) < 9 else quantity,
        "photo": int(photo) if photo.isascii() and photo.isdigit() and len(photo) < 19 else photo or None,
    }
    try:
        return NewAudit.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from error
