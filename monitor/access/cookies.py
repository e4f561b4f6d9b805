"""Cookies: for this monitor alone, and out of the reach of scripts."""

from __future__ import annotations

from fastapi import Request, Response

from monitor.access.proxies import root_of
from monitor.access.sessions import LIFETIME


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    """Have the browser keep a value for a shift."""
    response.set_cookie(
        name,
        value,
        max_age=int(LIFETIME.total_seconds()),
        httponly=True,
        # Not strict: who follows a link from a mail or a ticket would come without them, as a stranger who sees all
        # numbers, and what was seen before would be forgotten. Forms of other sites are refused by other means.
        samesite="lax",
        path=root_of(request) or "/",
        secure=request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:"),
    )


def delete_cookie(request: Request, response: Response, name: str) -> None:
    """Have the browser delete a cookie."""
    response.delete_cookie(name, root_of(request) or "/", httponly=True, samesite="lax")
