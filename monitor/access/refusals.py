"""Responses of middleware that refuses a request before the app sees it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from monitor.error_responses import answer, refusal


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, detail: str) -> None:
    """Answer as the app does when something is wrong, and close the connection: a body may still be on its way."""
    wrong = answer(Request(scope), refusal(status, detail), {"Connection": "close"})
    await wrong(scope, receive, send)
