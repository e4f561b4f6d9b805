"""Error responses: a page that says what to do, or problem JSON (RFC 9457) for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from binwatch.errors import BinwatchError, ObjectsError
from binwatch.records.audits import StaleAudit, UnknownBin
from binwatch.records.draws import NothingToDraw
from binwatch.records.variances import OwnCount, UnknownVariance, VarianceConflict
from monitor.access.authentication import (
    ForeignForm,
    NoName,
    NotApprover,
    NotSignedIn,
    NumbersHidden,
    WritingOff,
    WrongToken,
)
from monitor.access.negotiation import wants_page
from monitor.api.problem import MEDIA_TYPE, Fault, Problem
from monitor.pages.request_context import request_context
from monitor.pages.templates import render
from monitor.photos import NoPhoto
from monitor.records import RecordsDown
from monitor.summary import UnknownModel
from monitor.views.paging import BadCursor


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """An error message for people and scripts."""

    status: int
    title: str
    """Heading of the page."""
    text: str = ""
    """Explanation on the page; if empty, the error's own message."""
    advice: tuple[str, ...] = ()
    """What to do, a sentence each."""
    detail: str = ""
    """Explanation in problem JSON; if empty, the error's own message."""
    faults: list[Fault] | None = None


_FIND_BIN = "Look for the bin in the list of discrepancies: its filter finds bins by how their names begin."
_USE_THE_FORM = "Go back and choose from the form instead of changing the address by hand."
_IF_IT_PERSISTS = "If it does not, tell the person who runs Binwatch. The monitor's log says what is wrong."
_ENTER_AGAIN = "Go back, reload the page, and enter the count again."

# The messages of RecordsDown and ObjectsError contain the database and the endpoint, which must not be disclosed.
MESSAGES: Final[dict[type[BinwatchError], ErrorMessage]] = {
    NoPhoto: ErrorMessage(404, "There is no such photo"),
    UnknownModel: ErrorMessage(404, "There is no such model", advice=("Choose one on the page Models.",)),
    UnknownBin: ErrorMessage(
        404,
        "There is no such bin",
        "Neither a photo nor an expected quantity of it was ever recorded: mistyped, or in another bucket.",
        (_FIND_BIN,),
    ),
    NothingToDraw: ErrorMessage(
        404,
        "There is no bin to draw",
        "No bin has a photo that the model in use has counted, or all that were drawn have been audited or skipped.",
        ("Audit the bins that look wrong, or come back when there are new photos.",),
    ),
    BadCursor: ErrorMessage(
        400,
        "This address cannot be understood",
        "It leads to a place in the list that does not exist.",
        (_USE_THE_FORM,),
    ),
    StaleAudit: ErrorMessage(
        409, "A newer photo has arrived", advice=("Go back, reload the page, and look at the new photo.",)
    ),
    NotSignedIn: ErrorMessage(
        401,
        "You are not signed in",
        "Only users who are signed in may enter counts.",
        ("Sign in, and enter the count again.",),
    ),
    NotApprover: ErrorMessage(
        403,
        "This is for approvers",
        "Only they decide on variances, and see how often each auditor is right.",
        ("If you are one, sign in at /login with the approvers' token; sign out before, if you are signed in.",),
    ),
    OwnCount: ErrorMessage(403, "Somebody else has to decide"),
    UnknownVariance: ErrorMessage(404, "There is no such variance"),
    VarianceConflict: ErrorMessage(409, "Nothing was decided", advice=("Go back, reload the page, and look again.",)),
    WrongToken: ErrorMessage(
        401, "That is not the token", "The monitor has another one.", ("Ask the person who runs Binwatch for it.",)
    ),
    NoName: ErrorMessage(422, "This name is not valid"),
    WritingOff: ErrorMessage(
        403,
        "Entering counts is off",
        "No token is set to sign in with.",
        ("Ask the person who runs Binwatch for one.",),
    ),
    ForeignForm: ErrorMessage(
        403, "Nothing was saved", "The form was too old, or another web site sent it.", (_ENTER_AGAIN,)
    ),
    NumbersHidden: ErrorMessage(
        403,
        "You audit blind",
        "This shows what was counted and expected of bins that you may have to audit.",
        (
            "Go on with the bins to audit: the page Discrepancies lists them.",
            "Or choose “Show the numbers” there. A bin whose numbers you have seen is then for somebody else to audit.",
        ),
    ),
    ObjectsError: ErrorMessage(
        503,
        "The photos cannot be read",
        "The monitor is running, but the store of the photos does not answer.",
        ("Reload this page in a minute: it works again as soon as the store does.", _IF_IT_PERSISTS),
        "the photos cannot be read now; check the object store",
    ),
    RecordsDown: ErrorMessage(
        503,
        "The records cannot be read",
        "The monitor is running, but its database does not answer. Nothing is lost: photos wait to be recorded.",
        ("Reload this page in a minute: it works again as soon as the database does.", _IF_IT_PERSISTS),
        "the records cannot be read now; the monitor's log says why",
    ),
}
_NOT_SAVED = ErrorMessage(
    503,
    "This was not saved",
    "The monitor is running, but its database does not answer.",
    (
        "Go back and save again in a minute: what you entered is still in the form.",
        "If it fails again, write the count down and tell the person who runs Binwatch. The monitor's log says what is"
        " wrong.",
    ),
    MESSAGES[RecordsDown].detail,
)
_UNKNOWN_PAGE = ErrorMessage(
    404,
    "There is no such page",
    "The address may be mistyped, or the link to it is from another release.",
    (_FIND_BIN,),
)
_INVALID_REQUEST = ErrorMessage(422, "This address cannot be understood", advice=(_USE_THE_FORM,))
INTERNAL_ERROR = ErrorMessage(
    500,
    "Something is wrong with the monitor",
    "It failed on this page. The fault is noted in its log, and other pages may well work.",
    ("Tell the person who runs Binwatch which page it was, and when.",),
    "the monitor failed on this request; its log says why",
)


def message_for_error(request: Request, error: BinwatchError) -> ErrorMessage | None:
    """Return the message for an application error; None if there is none, as for internal errors."""
    error_type = next((error_type for error_type in MESSAGES if isinstance(error, error_type)), None)
    if error_type is None:
        return None
    if error_type is RecordsDown and request.method == "POST":
        return _NOT_SAVED
    message = MESSAGES[error_type]
    return replace(message, text=message.text or str(error), detail=message.detail or str(error))


def message_for_http(error: HTTPException) -> ErrorMessage:
    """Return the message for an unknown path, a method that is not allowed, or a body that is not a form."""
    if error.status_code == _UNKNOWN_PAGE.status:
        return replace(_UNKNOWN_PAGE, detail=error.detail)
    return message_for_status(error.status_code, error.detail)


def message_for_validation(error: RequestValidationError) -> ErrorMessage:
    """Return the message for invalid parameters or fields."""
    faults = [Fault(where=".".join(map(str, details["loc"])), says=details["msg"]) for details in error.errors()]
    first = f"{faults[0].where.rpartition('.')[2]}: {faults[0].says}"
    return replace(_INVALID_REQUEST, text=first, detail=first, faults=faults)


def message_for_status(status: int, detail: str) -> ErrorMessage:
    """Return a message for a status that needs no advice."""
    return ErrorMessage(status, HTTPStatus(status).phrase, detail, detail=detail)


def respond(request: Request, message: ErrorMessage, headers: Mapping[str, str] | None = None) -> Response:
    """Render an error message as a page or as problem JSON."""
    if wants_page(request):
        variables: dict[str, Any] = {"title": message.title, "text": message.text, "advice": message.advice}
        # A request that middleware refuses has not reached the app, which knows who is signed in.
        if app := request.scope.get("app"):
            variables["context"] = request_context(request, app.state.authenticator.access(request))
        page = render(request, "problem.html", message.status, **variables)
        page.headers.update(headers or {})
        return page
    problem = Problem(
        title=HTTPStatus(message.status).phrase,
        status=message.status,
        detail=message.detail,
        faults=message.faults,
    )
    challenge = {"WWW-Authenticate": "Bearer"} if message.status == HTTPStatus.UNAUTHORIZED else {}
    content = problem.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, message.status, challenge | dict(headers or {}), MEDIA_TYPE)
