"""The request context of every page: what its reader may do, and its address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from monitor.access.authentication import Access, CurrentAccess
from monitor.access.proxies import path_of


@dataclass(frozen=True, slots=True)
class _RequestContext:
    """Of one request for a page."""

    access: Access
    here: str
    """Path within the monitor, and query, of the page, to come back to after signing in."""


def _request_context(request: Request, access: CurrentAccess) -> _RequestContext:
    path, query = path_of(request), request.url.query
    return _RequestContext(access, f"{path}?{query}" if query else path)


RequestContext = Annotated[_RequestContext, Depends(_request_context)]
"""Type of a page's parameter that receives the request's context."""
