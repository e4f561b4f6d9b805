"""How often each auditor is right: for approvers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from monitor.access.authentication import Supervisor
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import html
from monitor.services import CurrentServices
from monitor.views.auditors import read_auditors

router = APIRouter()


@router.get("/auditors", response_class=HTMLResponse, dependencies=[Supervisor])
def auditors(request: Request, services: CurrentServices, context: RequestContext) -> HTMLResponse:
    """Agreement with other auditors and with known quantities."""
    found = services.records.read(read_auditors)
    return html(
        request,
        "auditors.html",
        page="Auditors",
        context=context,
        found=found,
        repeats=services.settings.audit_repeats,
    )
