"""Slices: which camera, aisle or site is worse than the others."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from monitor.api.machine import ModelName
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import html
from monitor.services import CurrentServices

router = APIRouter()


@router.get("/slices", response_class=HTMLResponse)
def slices(
    request: Request, services: CurrentServices, context: RequestContext, model: ModelName = None
) -> HTMLResponse:
    """Every slice of one model, the worst first."""
    return html(request, "slices.html", page="Slices", context=context, view=services.slices(model))
