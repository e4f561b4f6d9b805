"""Setting and deleting cookies, which are limited to this monitor and hidden from scripts."""

from __future__ import annotations

from fastapi import Request, Response

from monitor.access.proxies import root_path_of
from monitor.access.sessions import LIFETIME


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    """Set a cookie with the lifetime of a session."""
    response.set_cookie(
        name,
        value,
        max_age=int(LIFETIME.total_seconds()),
        httponly=True,
        # Not "strict": a link in a mail or a ticket would then open without cookies. An auditor would look signed out,
        # see all numbers, and the record of the bins seen would be lost. Forms are protected from other sites by
        # tokens and by `is_same_site`.
        samesite="lax",
        path=root_path_of(request) or "/",
        secure=request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:"),
    )


def delete_cookie(request: Request, response: Response, name: str) -> None:
    """Delete a cookie."""
    response.delete_cookie(name, root_path_of(request) or "/", httponly=True, samesite="lax")
