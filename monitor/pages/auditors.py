"""The page on the accuracy of each auditor, for approvers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from monitor.access.authentication import Supervisor
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import render
from monitor.services import CurrentServices
from monitor.views.auditors import read_auditors

router = APIRouter()


@router.get("/auditors", response_class=HTMLResponse, dependencies=[Supervisor])
def auditors(request: Request, services: CurrentServices, context: RequestContext) -> HTMLResponse:
    """Agreement of auditors with other auditors and with known quantities."""
    return render(
        request,
        "auditors.html",
        page="Auditors",
        context=context,
        auditors=services.records.read(read_auditors),
        repeats=services.settings.audit_repeats,
    )
