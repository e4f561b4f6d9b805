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
    """An error in words."""

    status: int
    title: str
    """Heading of the page."""
    says: str = ""
    """What people are told; the error's own words where it is empty."""
    advice: tuple[str, ...] = ()
    detail: str = ""
    """What scripts are told; the error's own words where it is empty."""
    faults: list[Fault] | None = None


_FIND_BIN = "Look for the bin in the list of discrepancies: its filter finds bins by how their names begin."
_CHOOSE = "Go back and choose from the form instead of changing the address by hand."
_TELL = "If it does not, tell the person who runs Binwatch. The monitor's log says what is wrong."
_RELOAD = "Go back, reload the page, and enter the count again."

# The words of RecordsDown and ObjectsError name the database and the endpoint, which is nobody else's business.
KINDS: Final[dict[type[BinwatchError], ErrorMessage]] = {
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
        400, "This address cannot be understood", "It leads to a place in the list that does not exist.", (_CHOOSE,)
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
        403, "Nothing was saved", "The form was too old, or another web site sent it.", (_RELOAD,)
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
        ("Reload this page in a minute: it works again as soon as the store does.", _TELL),
        "the photos cannot be read now; check the object store",
    ),
    RecordsDown: ErrorMessage(
        503,
        "The records cannot be read",
        "The monitor is running, but its database does not answer. Nothing is lost: photos wait to be recorded.",
        ("Reload this page in a minute: it works again as soon as the database does.", _TELL),
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
    KINDS[RecordsDown].detail,
)
_NOWHERE = ErrorMessage(
    404,
    "There is no such page",
    "The address may be mistyped, or the link to it is from another release.",
    (_FIND_BIN,),
)
_MISTYPED = ErrorMessage(422, "This address cannot be understood", advice=(_CHOOSE,))
OURS = ErrorMessage(
    500,
    "Something is wrong with the monitor",
    "It failed on this page. The fault is noted in its log, and other pages may well work.",
    ("Tell the person who runs Binwatch which page it was, and when.",),
    "the monitor failed on this request; its log says why",
)
"""An internal error."""


def of_error(request: Request, error: BinwatchError) -> ErrorMessage | None:
    """The message for an application error; None for internal errors."""
    kind = next((kind for kind in KINDS if isinstance(error, kind)), None)
    if kind is None:
        return None
    if kind is RecordsDown and request.method == "POST":
        return _NOT_SAVED
    found = KINDS[kind]
    return replace(found, says=found.says or str(error), detail=found.detail or str(error))


def of_status(error: HTTPException) -> ErrorMessage:
    """The message for an unknown address, an unknown method, a body that is no form."""
    if error.status_code == _NOWHERE.status:
        return replace(_NOWHERE, detail=error.detail)
    return refusal(error.status_code, error.detail)


def of_request(error: RequestValidationError) -> ErrorMessage:
    """The message for parameters or fields that do not validate."""
    faults = [Fault(where=".".join(map(str, one["loc"])), says=one["msg"]) for one in error.errors()]
    first = f"{faults[0].where.rpartition('.')[2]}: {faults[0].says}"
    return replace(_MISTYPED, says=first, detail=first, faults=faults)


def refusal(status: int, detail: str) -> ErrorMessage:
    """The message of a status that needs no advice."""
    return ErrorMessage(status, HTTPStatus(status).phrase, detail, detail=detail)


def answer(request: Request, message: ErrorMessage, headers: Mapping[str, str] | None = None) -> Response:
    """The response: a page, or problem JSON."""
    if wants_page(request):
        words: dict[str, Any] = {"title": message.title, "says": message.says, "advice": message.advice}
        # A request that middleware refuses has not reached the app, which knows who is signed in.
        if app := request.scope.get("app"):
            words["context"] = request_context(request, app.state.authenticator.access(request))
        page = render(request, "problem.html", message.status, **words)
        page.headers.update(headers or {})
        return page
    problem = Problem(
        title=HTTPStatus(message.status).phrase,
        status=message.status,
        detail=message.detail,
        faults=message.faults,
    )
    more = {"WWW-Authenticate": "Bearer"} if message.status == HTTPStatus.UNAUTHORIZED else {}
    content = problem.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, message.status, more | dict(headers or {}), MEDIA_TYPE)
