"""The list of bins whose photo does not match the quantity that the inventory expects, most suspicious first."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import Connection

from binwatch.records.variances import VarianceState
from monitor.access.authentication import CurrentAuthenticator
from monitor.pages import sentences
from monitor.pages.flash import FlashMessages
from monitor.pages.query import LEVELS, CurrentQuery, DiscrepancyQuery
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import render
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

PAGE_SIZE = 25
"""Bins per page, which a person can work through in one go."""

_RECOUNT_QUERY = DiscrepancyQuery(variance=VarianceState.OPEN)

Cursor = Annotated[str | None, Query(max_length=200)]


@router.get("/discrepancies", response_class=HTMLResponse)
def discrepancies(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    query: CurrentQuery,
    flash: FlashMessages,
    after: Cursor = None,
    before: Cursor = None,
) -> HTMLResponse:
    """List suspicious bins with the filter and the meaning of the level; blind auditors get their queue instead."""
    if context.access.is_blind:
        return _show_queue(request, services, context, query.without_numbers, flash)
    alpha, filters = services.alpha(query.level), services.filters(query.filters)

    def read(connection: Connection) -> tuple[DiscrepancyPage, Level, dict[VarianceState, int]]:
        bins = read_discrepancies(connection, filters, alpha, PAGE_SIZE, after, before)
        return bins, read_level(connection, alpha, filters.direction.suspicion), count_variances(connection)

    bins, level, variances = services.records.read(read)
    page = render(
        request,
        "discrepancies.html",
        page="Discrepancies",
        context=context,
        flash=flash,
        query=query,
        bins=bins,
        level=level,
        level_text=sentences.level_text(level, summarise_drift(services.drift.report)),
        empty_text=sentences.empty_list_text(level, is_filtered=query.is_filtered),
        direction=filters.direction,
        suspicion=filters.direction.suspicion,
        default_direction=services.settings.flag_direction,
        flagged_query=DiscrepancyQuery(
            flagged=True, level=query.level, direction=query.direction and Direction(query.direction.suspicion)
        ),
        default_level=services.settings.flag_level,
        levels=sorted({*LEVELS, services.settings.flag_level, alpha}),
        directions=list(Direction),
        export_query=query.to_export_query(alpha),
        variances=variances,
        variance_states=sentences.VARIANCE_STATES,
    )
    authenticator.sight_tracker.note_shown(request, page, [(bin_.bucket, bin_.bin_id) for bin_ in bins.items])
    return page


def _show_queue(
    request: Request,
    services: CurrentServices,
    context: RequestContext,
    query: DiscrepancyQuery,
    flash: FlashMessages,
) -> HTMLResponse:
    alpha, auditor = services.alpha(query.level), context.access.name

    def read(connection: Connection) -> list[list[QueuedBin]]:
        filters = (waiting_for_audit(query.filters, auditor), waiting_for_audit(_RECOUNT_QUERY.filters, auditor))
        return [read_queue(connection, queue_filters, alpha, PAGE_SIZE) for queue_filters in filters]

    bins, recounts = services.records.read(read)
    return render(
        request,
        "queue.html",
        page="Discrepancies",
        context=context,
        flash=flash,
        query=query,
        bins=bins,
        recounts=recounts,
        recount_query=_RECOUNT_QUERY,
        max_bins=PAGE_SIZE,
    )
