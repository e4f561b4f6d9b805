"""The first page: is all well, and if not, where to look."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import Connection

from monitor.api import ModelName
from monitor.latest import CountedPhoto, read_latest
from monitor.pages.problems import PageRoute
from monitor.pages.templates import html
from monitor.services import Given
from monitor.summary import Summary, summarise
from monitor.totals import read_totals

router = APIRouter(route_class=PageRoute)

LATEST = 12
"""Photos on the page: full rows of 2, 3, 4 and 6."""


@router.get("/", response_class=HTMLResponse)
def overview(services: Given, model: ModelName = None) -> HTMLResponse:
    """How well counts and inventory agree, and the photos that were recorded last."""

    def read(connection: Connection) -> tuple[Summary, list[CountedPhoto]]:
        return summarise(read_totals(connection), model), read_latest(connection, LATEST)

    summary, latest = services.records.read(read)
    return html("overview.html", page="Overview", summary=summary, latest=latest)
