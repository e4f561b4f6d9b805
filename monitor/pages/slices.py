"""The page of slices, such as cameras, aisles or sites."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from monitor.api.machine import ModelName
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import render
from monitor.services import CurrentServices

router = APIRouter()


@router.get("/slices", response_class=HTMLResponse)
def slices(
    request: Request, services: CurrentServices, context: RequestContext, model: ModelName = None
) -> HTMLResponse:
    """Show all slices of one model, worst first."""
    return render(request, "slices.html", page="Slices", context=context, view=services.slices(model))
