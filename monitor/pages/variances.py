"""Approving and rejecting variances on the page of a bin."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse

from binwatch.records.variances import OwnCount, VarianceConflict
from monitor.access.authentication import CurrentAuthenticator, ForeignForm, NoName, NotSignedIn, ShowsNumbers
from monitor.access.negotiation import is_own_form
from monitor.auditing import NewDecision, save_decision
from monitor.forms import Fields, FormProblem, local_path, redirect, validate, whole_number
from monitor.records import MAX_ID
from monitor.services import CurrentServices

router = APIRouter()

_PROBLEM_OF_ERROR: Final[dict[type[Exception], FormProblem]] = {
    OwnCount: FormProblem.OWN_COUNT,
    VarianceConflict: FormProblem.DECIDED,
    ForeignForm: FormProblem.FOREIGN,
    RequestValidationError: FormProblem.DECISION,
}


@router.post("/variances/{variance_id}", dependencies=[ShowsNumbers])
def decide(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    variance_id: Annotated[int, Path(ge=1, le=MAX_ID)],
    fields: Fields,
) -> RedirectResponse:
    """Record a decision. Fields: decision, quantity (the approved one), note, csrf, back (redirect target)."""
    back = local_path(fields.get("back"), "/lists/variances")
    try:
        writer = authenticator.require_approver(request)
        authenticator.check_form(writer, fields.get("csrf", ""))
        if writer.name is None:
            raise NoName
        quantity = fields.get("quantity")
        values = {
            "decision": fields.get("decision"),
            "quantity": whole_number(quantity) if quantity else None,
            "note": fields.get("note"),
        }
        save_decision(services.writable, variance_id, validate(NewDecision, values), writer.name)
    except NotSignedIn:
        if not is_own_form(request):
            raise
        return redirect(request, "/login", problem=FormProblem.SIGNED_OUT, next=back)
    except (OwnCount, VarianceConflict, ForeignForm, RequestValidationError) as error:
        if not is_own_form(request):
            raise
        return redirect(request, back, problem=_PROBLEM_OF_ERROR[type(error)])
    return redirect(request, back)
