"""The web app: routes, and what each error becomes on its way out."""

from __future__ import annotations

from http import HTTPStatus
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount
from starlette.types import ASGIApp

from binwatch.errors import BinwatchError
from monitor import api, pages, problems
from monitor.access.bodies import BodyLimit
from monitor.access.hosts import HostCheck
from monitor.access.limits import limited
from monitor.access.proxies import PublishedPath, TrustedProxies, path_of, root_of
from monitor.access.uploads import upload_limit
from monitor.access.writers import Doorkeeper
from monitor.api.problem import describe
from monitor.headers import HeadAsGet, SecurityHeaders
from monitor.services import Services
from monitor.turns import Turns


class _Described(FastAPI):
    """An app whose description says how it really answers when something is wrong."""

    def openapi(self) -> dict[str, Any]:
        """Made once."""
        if self.openapi_schema is None:
            self.openapi_schema = describe(super().openapi())
        return self.openapi_schema


def create_app(services: Services) -> ASGIApp:
    """The monitor as an ASGI app."""
    # FastAPI's documentation pages load scripts from other hosts; the document itself stays at /openapi.json.
    app = _Described(title="Binwatch monitor", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.services = services
    app.state.doorkeeper = Doorkeeper(services.settings)
    app.state.turns = Turns()
    app.include_router(pages.router)
    app.include_router(api.router)
    app.mount("/static", StaticFiles(directory=str(files("monitor") / "static")))
    for kind in (BinwatchError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _refuse)
    app.add_exception_handler(Exception, _fail)
    settings = services.settings
    names = [*services.settings.monitor_hosts.split(","), services.settings.monitor_host]
    bodies = BodyLimit(app, upload_limit(app.state.doorkeeper))
    inner = HeadAsGet(SecurityHeaders(HostCheck(limited(bodies), names)))
    return PublishedPath(inner, settings, TrustedProxies(settings))


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        return problems.answer(request, problems.of_request(error))
    if isinstance(error, HTTPException):
        if error.status_code == HTTPStatus.NOT_FOUND and (address := _without_slash(request)):
            return RedirectResponse(address, HTTPStatus.TEMPORARY_REDIRECT)
        return problems.answer(request, problems.of_status(error), error.headers)
    explained = problems.of_error(request, error) if isinstance(error, BinwatchError) else None
    if explained is None:
        raise error
    return problems.answer(request, explained)


def _without_slash(request: Request) -> str | None:
    """The same address without a slash at its end, if there is such a page.

    Starlette's own redirect names scheme and host, which behind a proxy are not those that the browser asked for.
    """
    path, query = path_of(request), request.url.query
    if not path.endswith("/"):
        return None
    bare = {**request.scope, "path": root_of(request) + path.rstrip("/"), "root_path": root_of(request)}
    app: FastAPI = request.app
    found = any(not isinstance(route, Mount) and route.matches(bare)[0] is not Match.NONE for route in app.routes)
    return bare["path"] + (f"?{query}" if query else "") if found else None


async def _fail(request: Request, _: Exception) -> Response:
    """The server logs the error itself, which is raised again once this is sent; then it closes the connection."""
    return problems.answer(request, problems.OURS, {"Connection": "close"})
