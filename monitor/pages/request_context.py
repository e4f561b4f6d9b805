"""The context of a request for a page: what its reader may do, and its path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from monitor.access.authentication import Access, CurrentAccess
from monitor.access.proxies import relative_path


@dataclass(frozen=True, slots=True)
class _RequestContext:
    """Context of a request for a page."""

    access: Access
    return_path: str
    """Path within the monitor with its query string, to return to after signing in; empty for POST and for /login."""


def request_context(request: Request, access: CurrentAccess) -> _RequestContext:
    """Return the context of a request for a page, or of a request that failed."""
    path, query = relative_path(request), request.url.query
    return_path = f"{path}?{query}" if query else path
    return _RequestContext(access, return_path if request.method == "GET" and path != "/login" else "")


RequestContext = Annotated[_RequestContext, Depends(request_context)]
"""Type of a route's parameter that receives the request's context."""
