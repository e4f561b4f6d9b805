"""What every page knows of whoever opened it: what they may do, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from monitor.access.proxies import path_of
from monitor.access.writers import Access, Asking


@dataclass(frozen=True, slots=True)
class _Visit:
    """One look at one page."""

    access: Access
    here: str
    """Path within the monitor, and query, of the page, to come back to after signing in."""


def _visit(request: Request, access: Asking) -> _Visit:
    path, query = path_of(request), request.url.query
    return _Visit(access, f"{path}?{query}" if query else path)


Visit = Annotated[_Visit, Depends(_visit)]
"""Type of a page's parameter that receives the visit."""
