"""The page of the models: cards, figures, confusion matrices, and when each was used."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from monitor.pages.request_context import RequestContext
from monitor.pages.templates import render
from monitor.services import CurrentServices
from monitor.views.models import Confusion, read_models

router = APIRouter()

MAX_SHADE = 5
"""Number of the darkest shade of a confusion matrix; 0 is no shade."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a confusion matrix."""

    count: int
    shade: int
    """Shade by the share of the row: 0 if `count` is 0, then one step for each fifth."""
    is_right: bool
    """Whether the cell is on the diagonal."""


@router.get("/models", response_class=HTMLResponse)
def models(request: Request, services: CurrentServices, context: RequestContext) -> HTMLResponse:
    """Show all models that have counted photos, the one in use first."""
    current = services.cards.current()
    view = services.records.read(lambda connection: read_models(connection, services.cards.get_cached, current))
    return render(request, "models.html", page="Models", context=context, models=view.models, cells_of=shaded_cells)


def shaded_cells(confusion: Confusion) -> list[list[Cell]]:
    """Return the cells, shaded by their share of the row, so that rare classes are as readable as common ones."""
    return [
        [
            Cell(count, min(1 + int(MAX_SHADE * count / sum(row)), MAX_SHADE) if count else 0, row_index == index)
            for index, count in enumerate(row)
        ]
        for row_index, row in enumerate(confusion.rows)
    ]
