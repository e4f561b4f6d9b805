"""Audits as JSON: entering one, and the list of all."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from monitor.access.authentication import CurrentWriter
from monitor.api.machine import MAX_ID
from monitor.api.problem import Problem
from monitor.auditing import AuditList, NewAudit, SavedAudit, read_audits, save
from monitor.services import CurrentServices

router = APIRouter(prefix="/api/audits", tags=["audits"], responses={503: {"model": Problem}})

_REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "a body that is not text"},
    401: {"model": Problem, "description": "no token, no session"},
    403: {"model": Problem, "description": "entering audits is off, or another site sent the request"},
    404: {"model": Problem, "description": "nothing is recorded of such a bin"},
    409: {"model": Problem, "description": "a newer photo of the bin has arrived"},
    413: {"model": Problem, "description": "the body is too large"},
    200: {"model": SavedAudit, "description": "it was recorded before, word for word"},
}


@router.post("", status_code=201, responses=_REFUSED)
def enter(services: CurrentServices, writer: CurrentWriter, audit: NewAudit, response: Response) -> SavedAudit:
    """Record what is really in a bin. Corrections are entered the same way: the last one counts.

    Needs `Authorization: Bearer` with the value of BINWATCH_MONITOR_TOKEN.
    """
    saved = save(services.writable, audit, writer, services.settings.bucket)
    if not saved.is_new:
        response.status_code = 200
    return saved


@router.get("")
def audits(
    services: CurrentServices,
    limit: Annotated[int, Query(ge=1, le=500, description="audits in the answer at most")] = 100,
    after: Annotated[int | None, Query(ge=1, le=MAX_ID, description="`next` of an earlier answer")] = None,
) -> AuditList:
    """Every audit, the newest first."""
    return services.records.read(lambda connection: read_audits(connection, limit, after))
