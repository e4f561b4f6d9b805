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


class _DescribedApp(FastAPI):
    """An app whose OpenAPI document includes the error responses."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, generated once."""
        if self.openapi_schema is None:
            self.openapi_schema = describe_errors(super().openapi())
        return self.openapi_schema


def create_app(services: Services) -> ASGIApp:
    """Create the monitor's ASGI app."""
    # Without FastAPI's documentation pages, which load scripts from other hosts. /openapi.json remains.
    app = _DescribedApp(title="Binwatch monitor", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.services = services
    app.state.authenticator = Authenticator(services.settings)
    app.state.photo_limiter = PhotoLimiter()
    app.include_router(routes.pages)
    app.include_router(routes.api)
    app.mount("/static", StaticFiles(directory=str(files("monitor") / "static")))
    for error_type in (BinwatchError, HTTPException, RequestValidationError):
        app.add_exception_handler(error_type, _handle_error)
    app.add_exception_handler(Exception, _handle_internal_error)
    settings = services.settings
    host_names = [*settings.monitor_hosts.split(","), settings.monitor_host]
    size_limited = BodyLimit(app, upload_limit(app.state.authenticator))
    inner = HeadAsGet(SecurityHeaders(HostCheck(limit_requests(size_limited), host_names)))
    return PublishedPath(inner, settings, TrustedProxies(settings))


async def _handle_error(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        return error_responses.respond(request, error_responses.message_for_validation(error))
    if isinstance(error, HTTPException):
        if error.status_code == HTTPStatus.NOT_FOUND and (address := _without_trailing_slash(request)):
            return RedirectResponse(address, HTTPStatus.TEMPORARY_REDIRECT)
        return error_responses.respond(request, error_responses.message_for_http(error), error.headers)
    message = error_responses.message_for_error(request, error) if isinstance(error, BinwatchError) else None
    if message is None:
        raise error
    return error_responses.respond(request, message)


def _without_trailing_slash(request: Request) -> str | None:
    """Return the path without its trailing slash; None if there is no slash or no such page.

    Starlette's own redirect contains the scheme and host, which differ from the browser's behind a proxy.
    """
    path, query = relative_path(request), request.url.query
    if not path.endswith("/"):
        return None
    scope = {**request.scope, "path": root_path_of(request) + path.rstrip("/"), "root_path": root_path_of(request)}
    app: FastAPI = request.app
    exists = any(not isinstance(route, Mount) and route.matches(scope)[0] is not Match.NONE for route in app.routes)
    return scope["path"] + (f"?{query}" if query else "") if exists else None


async def _handle_internal_error(request: Request, _: Exception) -> Response:
    """Respond with an internal error. The error is raised again afterwards, and the server logs it."""
    return error_responses.respond(request, error_responses.INTERNAL_ERROR, {"Connection": "close"})
