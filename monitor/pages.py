"""For people: one page with the agreement table and the latest photos. It needs no script."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import Connection

from monitor import words
from monitor.api import ModelName
from monitor.latest import CountedPhoto, read_latest
from monitor.records import RecordsDown
from monitor.services import Given
from monitor.summary import Summary, UnknownModel, summarise
from monitor.totals import read_totals

router = APIRouter(include_in_schema=False)

LATEST = 48
"""Photos on the page: full rows of 2, 3, 4 and 6."""


@router.get("/", response_class=HTMLResponse)
def overview(services: Given, model: ModelName = None) -> HTMLResponse:
    """How well counts and inventory agree, and the photos that were recorded last."""

    def read(connection: Connection) -> tuple[Summary, list[CountedPhoto]]:
        return summarise(read_totals(connection), model), read_latest(connection, LATEST)

    try:
        summary, latest = services.records.read(read)
    except RecordsDown:
        return _page("problem.html", 503, title="The records cannot be read", advice=words.RECORDS_DOWN)
    except UnknownModel as error:
        return _page("problem.html", 404, title="No such model", advice=str(error))
    return _page("overview.html", summary=summary, latest=latest)


def _page(template: str, status: int = 200, **values: object) -> HTMLResponse:
    return HTMLResponse(_TEMPLATES.get_template(template).render(values), status)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("monitor"),
        autoescape=True,  # keys, details and model names are strangers' text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": words.share,
        "items": words.items,
        "number": words.number,
        "moment": words.moment,
        "iso": datetime.isoformat,
        "reason": words.reason,
        "difference": words.difference,
    }
    return environment


_TEMPLATES = _environment()
