"""Responses of middleware that refuses a request before the app sees it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from monitor.error_responses import message_for_status, respond


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, detail: str) -> None:
    """Answer as the app does when something is wrong, and close the connection: a body may still be on its way."""
    response = respond(Request(scope), message_for_status(status, detail), {"Connection": "close"})
    await response(scope, receive, send)
