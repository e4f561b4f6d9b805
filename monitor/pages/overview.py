"""The first page: is all well, and if not, where to look."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from monitor.api import ModelName
from monitor.pages import sentences, trend
from monitor.pages.asked import Asked
from monitor.pages.news import News
from monitor.pages.templates import html
from monitor.pages.visit import Visit
from monitor.services import Given
from monitor.views.overview import TimeRange, read_overview

router = APIRouter()


@router.get("/", response_class=HTMLResponse)
def overview(
    request: Request,
    services: Given,
    visit: Visit,
    news: News,
    model: ModelName = None,
    span: TimeRange = TimeRange.WEEK,
) -> HTMLResponse:
    """How well counts and inventory agree, what waits for somebody, and the photos that were recorded last."""
    level, direction = services.settings.flag_level, services.settings.flag_direction
    view = services.records.read(
        lambda connection: read_overview(
            connection, services.drift.report, services.reference_at_hand, level, direction, model, span
        )
    )
    return html(
        request,
        "overview.html",
        page="Overview",
        visit=visit,
        news=news,
        view=view,
        summary=view.summary,
        chart=trend.chart_of(view.trend),
        says=trend.says(view.trend),
        drift=sentences.drift_status(view.drift),
        level_says=sentences.level(view.level, view.drift),
        spans=sentences.SPANS,
        asked={"model": model, "span": None if span is TimeRange.WEEK else span.value},
        queue=Asked(flagged=True),
    )
