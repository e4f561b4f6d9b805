"""Signing in and out, for those who enter what is really in a bin."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from binwatch.records.audits import MAX_NAME
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
from monitor.forms import Fields, FormProblem, go, local
from monitor.pages.flash import FlashMessages, failed
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import html

router = APIRouter()

Onwards = Annotated[str | None, Query(alias="next", max_length=4_000)]


@router.get("/login", response_class=HTMLResponse)
def login(request: Request, context: RequestContext, flash: FlashMessages, onwards: Onwards = None) -> HTMLResponse:
    """The form for the token, or how to turn writing on."""
    return html(
        request,
        "login.html",
        context=context,
        flash=flash,
        onwards=local(onwards, "/discrepancies"),
        name="",
    )


@router.post("/login")
def sign_in(request: Request, authenticator: CurrentAuthenticator, context: RequestContext, fields: Fields) -> Response:
    """Fields token, name; `next`: where to go. What fails shows the form again, with the name but not the token."""
    onwards, name = local(fields.get("next"), "/"), fields.get("name", "")
    try:
        cookie = authenticator.sign_in(request, fields.get("token", ""), name)
    except (WrongToken, NoName) as error:
        if not is_own_form(request):
            raise
        problem, status = (FormProblem.NAME, 422) if isinstance(error, NoName) else (FormProblem.TOKEN, 401)
        return html(
            request,
            "login.html",
            status,
            context=context,
            flash=failed(problem),
            onwards=onwards,
            name=name[:MAX_NAME],
        )
    answer = go(request, onwards)
    set_cookie(request, answer, COOKIE, cookie)
    if SHOWN_COOKIE in request.cookies:  # somebody else may have asked for it
        delete_cookie(request, answer, SHOWN_COOKIE)
    return answer


@router.post("/logout")
def sign_out(request: Request, authenticator: CurrentAuthenticator, fields: Fields) -> RedirectResponse:
    """Fields csrf; `next`: where to go."""
    answer = go(request, local(fields.get("next"), "/"))
    try:
        authenticator.check_form(authenticator.require_writer(request), fields.get("csrf", ""))
    except (NotSignedIn, WritingOff):
        return answer  # there is nothing to end
    delete_cookie(request, answer, COOKIE)
    return answer
