"""The first page: is all well, and if not, where to look."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from binwatch.bundle import Reference
from monitor.api import ModelName
from monitor.pages import sentences, trend
from monitor.pages.asked import Asked
from monitor.pages.problems import PageRoute
from monitor.pages.templates import html
from monitor.services import Given
from monitor.views.overview import Span, read_overview

router = APIRouter(route_class=PageRoute)


@router.get("/", response_class=HTMLResponse)
def overview(services: Given, model: ModelName = None, span: Span = Span.WEEK) -> HTMLResponse:
    """How well counts and inventory agree, what waits for somebody, and the photos that were recorded last."""

    def reference_of(version: str) -> Reference | None:
        card = services.cards.at_hand(version)
        return card.reference if card else None

    level = services.settings.flag_level
    view = services.records.read(
        lambda connection: read_overview(connection, services.drift.report, reference_of, level, model, span)
    )
    return html(
        "overview.html",
        page="Overview",
        view=view,
        summary=view.summary,
        chart=trend.chart_of(view.trend),
        says=trend.says(view.trend),
        drift=sentences.drift_status(view.drift),
        level_says=sentences.level(view.level),
        spans=sentences.SPANS,
        asked={"model": model, "span": None if span is Span.WEEK else span.value},
        queue=Asked(flagged=True),
    )
