"""Signing in, for those who enter what is really in a bin."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from monitor.forms import local
from monitor.pages.news import News
from monitor.pages.problems import PageRoute
from monitor.pages.templates import html
from monitor.pages.visit import Visit

router = APIRouter(route_class=PageRoute)

Onwards = Annotated[str | None, Query(alias="next", max_length=4_000)]


@router.get("/login", response_class=HTMLResponse)
def login(visit: Visit, news: News, onwards: Onwards = None) -> HTMLResponse:
    """The form for the token, or how to turn writing on."""
    return html("login.html", visit=visit, news=news, onwards=local(onwards, "/discrepancies"))
