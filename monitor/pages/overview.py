"""The overview: the first page."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from monitor.access.authentication import CurrentAuthenticator
from monitor.api.machine import ModelName
from monitor.pages import sentences
from monitor.pages.flash import FlashMessages
from monitor.pages.query import DiscrepancyQuery
from monitor.pages.request_context import RequestContext
from monitor.pages.templates import render
from monitor.pages.trend import trend_chart, trend_text
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
    """Show how well counts and inventory agree, the open work, and the latest photos."""
    view = services.overview(model, span)
    page = render(
        request,
        "overview.html",
        page="Overview",
        context=context,
        flash=flash,
        view=view,
        summary=view.summary,
        chart=trend_chart(view.trend),
        chart_text=trend_text(view.trend),
        drift_status=sentences.drift_status(view.drift),
        level_text=sentences.level_text(view.level, view.drift),
        spans=sentences.SPANS,
        query={"model": model, "span": None if span is TimeRange.WEEK else span.value},
        flagged_query=DiscrepancyQuery(flagged=True),
    )
    if not context.access.is_blind:
        authenticator.sight_tracker.note_shown(request, page, [(photo.bucket, photo.bin_id) for photo in view.latest])
    return page
