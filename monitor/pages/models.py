"""The models: cards, figures, confusion matrices, and since when each is in use."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from monitor.pages.request_context import RequestContext
from monitor.pages.templates import html
from monitor.services import CurrentServices
from monitor.views.models import Confusion, read_models

router = APIRouter()

SHADES = 5
"""Darkest shade of a confusion matrix; 0 is none."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a confusion matrix."""

    number: int
    shade: int
    """By its share of the row: 0 if the number is 0, then a step for each fifth."""
    is_right: bool


@router.get("/models", response_class=HTMLResponse)
def models(request: Request, services: CurrentServices, context: RequestContext) -> HTMLResponse:
    """Every model that ever counted, the one in use first."""
    current = services.cards.current()
    view = services.records.read(lambda connection: read_models(connection, services.cards.get_cached, current))
    return html(request, "models.html", page="Models", context=context, models=view.models, matrix_of=shaded)


def shaded(confusion: Confusion) -> list[list[Cell]]:
    """Cells with a shade for their share of the row, so that rare classes can be read as well as common ones."""
    return [
        [
            Cell(number, min(1 + int(SHADES * number / sum(row)), SHADES) if number else 0, row_index == index)
            for index, number in enumerate(row)
        ]
        for row_index, row in enumerate(confusion.rows)
    ]
