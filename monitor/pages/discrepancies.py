"""The list of bins whose photo does not look like what the inventory expects, the oddest first."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import Connection

from binwatch.records.variances import VarianceState
from monitor.access.authentication import CurrentAuthenticator
from monitor.pages import query, sentences
from monitor.pages.flash import FlashMessages
from monitor.pages.query import DiscrepancyQuery
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import html
from monitor.services import CurrentServices
from monitor.views.blind import QueuedBin, read_queue
from monitor.views.discrepancies import (
    Direction,
    DiscrepancyPage,
    Level,
    count_variances,
    read_discrepancies,
    read_level,
    waiting_for_audit,
)
from monitor.views.drift import summarise_drift

router = APIRouter()

AT_A_TIME = 25
"""Bins on a page: what somebody walks through in one go."""

_RECOUNTS = DiscrepancyQuery(variance=VarianceState.OPEN)

Cursor = Annotated[str | None, Query(max_length=200)]


@router.get("/discrepancies", response_class=HTMLResponse)
def discrepancies(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    wanted: query.CurrentQuery,
    flash: FlashMessages,
    after: Cursor = None,
    before: Cursor = None,
) -> HTMLResponse:
    """Bins to look at, with the filter, and what the level promises; to blind auditors, the bins alone."""
    if context.access.is_blind:
        return _queue(request, services, context, wanted.for_blind, flash)
    alpha, filters = services.alpha(wanted.level), services.filters(wanted.filters)

    def read(connection: Connection) -> tuple[DiscrepancyPage, Level, dict[VarianceState, int]]:
        page = read_discrepancies(connection, filters, alpha, AT_A_TIME, after, before)
        return page, read_level(connection, alpha, filters.direction.suspicion), count_variances(connection)

    found, level, variances = services.records.read(read)
    page = html(
        request,
        "discrepancies.html",
        page="Discrepancies",
        context=context,
        flash=flash,
        asked=wanted,
        found=found,
        level=level,
        says=sentences.level(level, summarise_drift(services.drift.report)),
        empty=sentences.nothing_found(level, is_filtered=wanted.is_filtered),
        direction=filters.direction,
        suspicion=filters.direction.suspicion,
        usual_direction=services.settings.flag_direction,
        queue=DiscrepancyQuery(
            flagged=True, level=wanted.level, direction=wanted.direction and Direction(wanted.direction.suspicion)
        ),
        usual=services.settings.flag_level,
        levels=sorted({*query.LEVELS, services.settings.flag_level, alpha}),
        directions=list(Direction),
        export=wanted.export(alpha),
        variances=variances,
        states=sentences.VARIANCE_STATES,
    )
    authenticator.sight_tracker.note_shown(request, page, [(one.bucket, one.bin_id) for one in found.items])
    return page


def _queue(
    request: Request,
    services: CurrentServices,
    context: RequestContext,
    wanted: DiscrepancyQuery,
    flash: FlashMessages,
) -> HTMLResponse:
    alpha, name = services.alpha(wanted.level), context.access.name
    filters, recounts = waiting_for_audit(wanted.filters, name), waiting_for_audit(_RECOUNTS.filters, name)

    def read(connection: Connection) -> list[list[QueuedBin]]:
        return [read_queue(connection, of, alpha, AT_A_TIME) for of in (filters, recounts)]

    found, again = services.records.read(read)
    return html(
        request,
        "queue.html",
        page="Discrepancies",
        context=context,
        flash=flash,
        asked=wanted,
        found=found,
        again=again,
        recounts=_RECOUNTS,
        most=AT_A_TIME,
    )
