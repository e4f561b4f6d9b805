"""The web app: routes, and what each error becomes on its way out."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from anyio import CapacityLimiter
from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from binwatch.errors import BinwatchError, ObjectsError
from binwatch.records.audits import StaleAudit, UnknownBin
from monitor import api, forms, pages
from monitor.access.bodies import BodyLimit
from monitor.access.hosts import HostCheck
from monitor.access.writers import Doorkeeper, ForeignForm, NotSignedIn, WritingOff, WrongToken
from monitor.headers import SecurityHeaders
from monitor.pages import problems
from monitor.photos import NoPhoto
from monitor.records import RecordsDown
from monitor.services import Services
from monitor.summary import UnknownModel
from monitor.views.discrepancies import BadCursor

PHOTOS_AT_A_TIME = 4
"""Photos fetched and decoded at a time; more wait. Each may take `max_photo_bytes` and its pixels in memory."""

_STATUS: Final[dict[type[BinwatchError], int]] = {
    NoPhoto: 404,
    UnknownModel: 404,
    UnknownBin: 404,
    BadCursor: 400,
    StaleAudit: 409,
    NotSignedIn: 401,
    WrongToken: 401,
    WritingOff: 403,
    ForeignForm: 403,
    ObjectsError: 503,
    RecordsDown: 503,
}
# What strangers are told instead of the error, which names the database or the endpoint.
_PUBLIC: Final[dict[type[BinwatchError], str]] = {
    RecordsDown: "the records cannot be read now; the monitor's log says why",
    ObjectsError: "the photos cannot be read now; check the object store",
}


def create_app(services: Services) -> ASGIApp:
    """The monitor as an ASGI app."""
    # FastAPI's documentation pages load scripts from other hosts; the document itself stays at /openapi.json.
    app = FastAPI(title="Binwatch monitor", docs_url=None, redoc_url=None)
    app.state.services = services
    app.state.doorkeeper = Doorkeeper(services.settings)
    app.state.photo_limiter = CapacityLimiter(PHOTOS_AT_A_TIME)
    app.include_router(pages.router)
    app.include_router(forms.router)
    app.include_router(api.router)
    app.mount("/static", StaticFiles(directory=str(files("monitor") / "static")))
    app.add_exception_handler(BinwatchError, _explain)
    app.add_exception_handler(HTTPException, _not_there)
    names = [*services.settings.monitor_hosts.split(","), services.settings.monitor_host]
    return SecurityHeaders(HostCheck(BodyLimit(app), names))


async def _not_there(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return problems.page_of(request, error) or await http_exception_handler(request, error)


async def _explain(request: Request, error: Exception) -> Response:
    page = problems.page_of(request, error)
    if page is not None:
        return page
    kind = next((kind for kind in _STATUS if isinstance(error, kind)), None)
    if kind is None:
        raise error
    headers = {"WWW-Authenticate": "Bearer"} if _STATUS[kind] == 401 else None
    return JSONResponse({"detail": _PUBLIC.get(kind, str(error))}, _STATUS[kind], headers)
