"""An answer before the app has seen the request."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, detail: str) -> None:
    """Answer as the API does when something is wrong, and close the connection: a body may still be on its way."""
    answer = JSONResponse({"detail": detail}, status, headers={"Connection": "close"})
    await answer(scope, receive, send)
