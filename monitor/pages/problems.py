"""What went wrong, as a page that says what to do. What the API answers as JSON, people get in words."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from binwatch.errors import BinwatchError
from binwatch.records.audits import UnknownBin
from monitor.pages.templates import html
from monitor.records import RecordsDown
from monitor.summary import UnknownModel
from monitor.views.discrepancies import BadCursor


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of page that is not there, or not now."""

    status: int
    title: str
    says: str
    advice: tuple[str, ...]


RECORDS = Problem(
    503,
    "The records cannot be read",
    "The monitor is running, but its database does not answer. Nothing is lost: photos wait to be recorded.",
    (
        "Reload this page in a minute: it works again as soon as the database does.",
        "If it does not, tell whoever runs Binwatch. The monitor's log says what is wrong.",
    ),
)
NOT_SAVED = Problem(
    503,
    "This was not saved",
    "The monitor is running, but its database does not answer.",
    (
        "Go back and save again in a minute: what you entered is still in the form.",
        "If it fails again, write the count down and tell whoever runs Binwatch. The monitor's log says what is wrong.",
    ),
)
NOWHERE = Problem(
    404,
    "There is no such page",
    "The address may be mistyped, or the link to it is from another release.",
    ("Look for the bin in the list of discrepancies: its filter finds bins by how their names begin.",),
)
BIN = Problem(
    404,
    "There is no such bin",
    "Neither a photo nor an expected quantity of it was ever recorded: mistyped, or in another bucket.",
    ("Look for it in the list of discrepancies: the filter finds bins by how their names begin.",),
)
MISTYPED = Problem(
    422,
    "This address cannot be understood",
    "A part of the address after the question mark has a value that it cannot have.",
    ("Go back and choose from the form instead of changing the address by hand.",),
)
_SCRIPTS: Final = ("/api/", "/photos/", "/metrics", "/healthz")
"""What is read by scripts, even if a person looks into it with a browser."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A route whose errors are pages, too."""

    def get_route_handler(self) -> Handler:
        """The route's own handler, with its errors explained."""
        answer = super().get_route_handler()

        async def explained(request: Request) -> Response:
            try:
                return await answer(request)
            except RequestValidationError as error:
                return _page(MISTYPED, _where(error))
            except BinwatchError as error:
                problem = _problem_of(error)
                if problem is None:
                    raise
                return _page(problem)

        return explained


def page_of(request: Request, error: Exception) -> HTMLResponse | None:
    """An error outside of the pages' own routes, for a person: an address that is not there, a form that failed.

    None for scripts, and for what there are no words for.
    """
    if request.url.path.startswith(_SCRIPTS) or "text/html" not in request.headers.get("accept", ""):
        return None
    problem = _problem_of(error) if isinstance(error, BinwatchError) else None
    if problem is RECORDS and request.method == "POST":
        problem = NOT_SAVED
    if isinstance(error, HTTPException) and error.status_code == NOWHERE.status:
        problem = NOWHERE
    return _page(problem) if problem else None


def _problem_of(error: BinwatchError) -> Problem | None:
    if isinstance(error, RecordsDown):
        return RECORDS  # what it says names the database
    if isinstance(error, UnknownBin):
        return BIN
    if isinstance(error, BadCursor):
        return MISTYPED
    if isinstance(error, UnknownModel):
        return Problem(404, "No such model", str(error), ("Choose one on the page Models.",))
    return None


def _where(error: RequestValidationError) -> str:
    first = error.errors()[0]
    return f"{first['loc'][-1]}: {first['msg']}"


def _page(problem: Problem, says: str | None = None) -> HTMLResponse:
    return html("problem.html", problem.status, title=problem.title, says=says or problem.says, advice=problem.advice)
