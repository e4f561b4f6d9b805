"""Signing in and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from binwatch.records.audits import MAX_NAME_LENGTH
from monitor.access.authentication import (
    COOKIE,
    CurrentAuthenticator,
    NoName,
    NotSignedIn,
    WritingOff,
    WrongToken,
)
from monitor.access.cookies import delete_cookie, set_cookie
from monitor.access.negotiation import is_own_form
from monitor.access.sight import SHOWN_COOKIE
from monitor.forms import Fields, FormProblem, local_path, redirect
from monitor.pages.flash import FlashMessages, problem_message
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import render

router = APIRouter()

NextPath = Annotated[str | None, Query(alias="next", max_length=4_000)]


@router.get("/login", response_class=HTMLResponse)
def login(request: Request, context: RequestContext, flash: FlashMessages, next_path: NextPath = None) -> HTMLResponse:
    """Show the login form, or how to turn writing on."""
    return render(
        request,
        "login.html",
        context=context,
        flash=flash,
        next_path=local_path(next_path, "/discrepancies"),
        name="",
    )


@router.post("/login")
def sign_in(request: Request, authenticator: CurrentAuthenticator, context: RequestContext, fields: Fields) -> Response:
    """Open a session. Fields: token, name, next (redirect target).

    If the token or the name is refused, the form is shown again with the name, but without the token.
    """
    next_path, name = local_path(fields.get("next"), "/"), fields.get("name", "")
    try:
        cookie = authenticator.sign_in(request, fields.get("token", ""), name)
    except (WrongToken, NoName) as error:
        if not is_own_form(request):
            raise
        problem, status = (FormProblem.NAME, 422) if isinstance(error, NoName) else (FormProblem.TOKEN, 401)
        return render(
            request,
            "login.html",
            status,
            context=context,
            flash=problem_message(problem),
            next_path=next_path,
            name=name[:MAX_NAME_LENGTH],
        )
    response = redirect(request, next_path)
    set_cookie(request, response, COOKIE, cookie)
    if SHOWN_COOKIE in request.cookies:  # another user of this browser may have chosen to see the numbers
        delete_cookie(request, response, SHOWN_COOKIE)
    return response


@router.post("/logout")
def sign_out(request: Request, authenticator: CurrentAuthenticator, fields: Fields) -> RedirectResponse:
    """End the session. Fields: csrf, next (redirect target)."""
    response = redirect(request, local_path(fields.get("next"), "/"))
    try:
        authenticator.check_form(authenticator.require_writer(request), fields.get("csrf", ""))
    except (NotSignedIn, WritingOff):
        return response  # there is no session to end
    delete_cookie(request, response, COOKIE)
    return response
