"""Content negotiation: browsers get pages, scripts get JSON."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from monitor.access.authentication import is_same_site
from monitor.access.proxies import relative_path

_MACHINE_PATHS: Final = ("/api/", "/photos/", "/metrics", "/healthz", "/openapi.json")
"""Prefixes of paths that never answer with a page."""


def wants_page(request: Request) -> bool:
    """Return whether the response should be a page: browsers accept HTML."""
    return not relative_path(request).startswith(_MACHINE_PATHS) and "text/html" in request.headers.get("accept", "")


def is_own_form(request: Request) -> bool:
    """Return whether a browser sent the form of one of the monitor's pages, so that errors can lead back to it."""
    return wants_page(request) and is_same_site(request, require_origin=True)
