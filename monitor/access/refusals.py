"""Error responses of middleware that refuses a request before it reaches the app."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from monitor.error_responses import message_for_status, respond


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, detail: str) -> None:
    """Send an error response in the app's format and close the connection, since the body may not have been read."""
    response = respond(Request(scope), message_for_status(status, detail), {"Connection": "close"})
    await response(scope, receive, send)
