"""The request context of every page: what its reader may do, and its address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from monitor.access.authentication import Access, CurrentAccess
from monitor.access.proxies import relative_path


@dataclass(frozen=True, slots=True)
class _RequestContext:
    """Of one request for a page."""

    access: Access
    here: str
    """Path within the monitor, and query, to come back to after signing in; empty for a sent form, and for /login."""


def request_context(request: Request, access: CurrentAccess) -> _RequestContext:
    """The context of a request for a page, or of one that failed."""
    path, query = relative_path(request), request.url.query
    here = f"{path}?{query}" if query else path
    return _RequestContext(access, here if request.method == "GET" and path != "/login" else "")


RequestContext = Annotated[_RequestContext, Depends(request_context)]
"""Type of a page's parameter that receives the request's context."""
