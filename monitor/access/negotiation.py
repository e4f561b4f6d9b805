"""Content negotiation: a person's browser gets pages, a script gets JSON."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from monitor.access.authentication import is_from_here
from monitor.access.proxies import path_of

_SCRIPTS: Final = ("/api/", "/photos/", "/metrics", "/healthz", "/openapi.json")
"""Paths that answer a browser as they answer a script."""


def wants_page(request: Request) -> bool:
    """Whether the answer is for a person: browsers say that they take HTML."""
    return not path_of(request).startswith(_SCRIPTS) and "text/html" in request.headers.get("accept", "")


def sent_a_form(request: Request) -> bool:
    """Whether a person sent a form of this monitor's pages, so that an error can lead back to the form."""
    return wants_page(request) and is_from_here(request, must_say_so=True)
