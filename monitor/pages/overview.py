"""The first page: is all well, and if not, where to look."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from monitor.access.authentication import CurrentAuthenticator
from monitor.api.machine import ModelName
from monitor.pages import sentences, trend
from monitor.pages.flash import FlashMessages
from monitor.pages.query import DiscrepancyQuery
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import html
from monitor.services import CurrentServices
from monitor.views.overview import TimeRange

router = APIRouter()


@router.get("/", response_class=HTMLResponse)
def overview(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    context: RequestContext,
    flash: FlashMessages,
    model: ModelName = None,
    span: TimeRange = TimeRange.WEEK,
) -> HTMLResponse:
    """How well counts and inventory agree, what waits for somebody, and the photos that were recorded last."""
    view = services.overview(model, span)
    page = html(
        request,
        "overview.html",
        page="Overview",
        context=context,
        flash=flash,
        view=view,
        summary=view.summary,
        chart=trend.chart_of(view.trend),
        says=trend.says(view.trend),
        drift=sentences.drift_status(view.drift),
        level_says=sentences.level(view.level, view.drift),
        spans=sentences.SPANS,
        asked={"model": model, "span": None if span is TimeRange.WEEK else span.value},
        queue=DiscrepancyQuery(flagged=True),
    )
    if not context.access.is_blind:
        authenticator.sight_tracker.note_shown(request, page, [(one.bucket, one.bin_id) for one in view.latest])
    return page
