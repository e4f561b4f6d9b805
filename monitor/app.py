"""The web app: routes, middleware and error handlers."""

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
from monitor import error_responses, routes
from monitor.access.authentication import Authenticator
from monitor.access.bodies import BodyLimit
from monitor.access.hosts import HostCheck
from monitor.access.limits import limit_requests
from monitor.access.proxies import PublishedPath, TrustedProxies, relative_path, root_path_of
from monitor.access.uploads import upload_limit
from monitor.api.problem import describe_errors
from monitor.headers import HeadAsGet, SecurityHeaders
from monitor.photo_limiter import PhotoLimiter
from monitor.services import Services


class _Described(FastAPI):
    """An app whose OpenAPI document describes the error responses that it sends."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = describe_errors(super().openapi())
        return self.openapi_schema


def create_app(services: Services) -> ASGIApp:
    """The monitor as an ASGI app."""
    # FastAPI's documentation pages load scripts from other hosts; the document itself stays at /openapi.json.
    app = _Described(title="Binwatch monitor", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.services = services
    app.state.authenticator = Authenticator(services.settings)
    app.state.photo_limiter = PhotoLimiter()
    app.include_router(routes.pages)
    app.include_router(routes.api)
    app.mount("/static", StaticFiles(directory=str(files("monitor") / "static")))
    for kind in (BinwatchError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _refuse)
    app.add_exception_handler(Exception, _fail)
    settings = services.settings
    names = [*services.settings.monitor_hosts.split(","), services.settings.monitor_host]
    bodies = BodyLimit(app, upload_limit(app.state.authenticator))
    inner = HeadAsGet(SecurityHeaders(HostCheck(limit_requests(bodies), names)))
    return PublishedPath(inner, settings, TrustedProxies(settings))


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        return error_responses.answer(request, error_responses.of_request(error))
    if isinstance(error, HTTPException):
        if error.status_code == HTTPStatus.NOT_FOUND and (address := _without_slash(request)):
            return RedirectResponse(address, HTTPStatus.TEMPORARY_REDIRECT)
        return error_responses.answer(request, error_responses.of_status(error), error.headers)
    explained = error_responses.of_error(request, error) if isinstance(error, BinwatchError) else None
    if explained is None:
        raise error
    return error_responses.answer(request, explained)


def _without_slash(request: Request) -> str | None:
    """The same address without a slash at its end, if there is such a page.

    Starlette's own redirect names scheme and host, which behind a proxy are not those that the browser asked for.
    """
    path, query = relative_path(request), request.url.query
    if not path.endswith("/"):
        return None
    bare = {**request.scope, "path": root_path_of(request) + path.rstrip("/"), "root_path": root_path_of(request)}
    app: FastAPI = request.app
    found = any(not isinstance(route, Mount) and route.matches(bare)[0] is not Match.NONE for route in app.routes)
    return bare["path"] + (f"?{query}" if query else "") if found else None


async def _fail(request: Request, _: Exception) -> Response:
    """The server logs the error itself, which is raised again once this is sent; then it closes the connection."""
    return error_responses.answer(request, error_responses.OURS, {"Connection": "close"})
