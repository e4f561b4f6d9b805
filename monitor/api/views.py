"""What the pages show, as JSON, and the list of discrepancies as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from monitor.access.authentication import CurrentAuthenticator, ShowsNumbers
from monitor.api.machine import ModelName
from monitor.api.parameters import Alpha, BinId, Bucket, FileQuery, FlagDirection, ListQuery
from monitor.api.problem import Problem
from monitor.services import CurrentServices
from monitor.views.bins import BinDetail, read_bin
from monitor.views.discrepancies import DiscrepancyPage, Level, read_discrepancies, read_level
from monitor.views.discrepancies_csv import CHUNK_ROWS, HEADER, lines
from monitor.views.drift import DriftView, view_drift
from monitor.views.models import ModelsView, read_models
from monitor.views.overview import Overview, TimeRange
from monitor.views.slices import SlicesView

router = APIRouter(prefix="/api", responses={503: {"model": Problem}})

_NOT_THERE: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Problem}}


@router.get("/overview", responses=_NOT_THERE, dependencies=[ShowsNumbers])
def overview(
    services: CurrentServices, model: ModelName = None, span: TimeRange = TimeRange.WEEK, alpha: Alpha = None
) -> Overview:
    """Agreement and estimated accuracy over time, drift, what waits for somebody, and the latest photos."""
    return services.overview(model, span, alpha)


@router.get(
    "/discrepancies",
    responses={400: {"model": Problem, "description": "an invalid cursor"}},
    dependencies=[ShowsNumbers],
)
def discrepancies(services: CurrentServices, asked: Annotated[ListQuery, Query()]) -> DiscrepancyPage:
    """Bins whose count differs from what is expected, the oddest first."""
    level, filters = services.alpha(asked.alpha), services.filters(asked)
    return services.records.read(
        lambda connection: read_discrepancies(connection, filters, level, asked.limit, asked.after, asked.before)
    )


@router.get(
    "/discrepancies.csv",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}}, "description": "one line for each bin, after a header"}},
    dependencies=[ShowsNumbers],
)
def discrepancies_csv(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    asked: Annotated[FileQuery, Query()],
) -> StreamingResponse:
    """The same list as CSV, at most 100,000 bins."""
    level, filters = services.alpha(asked.alpha), services.filters(asked)

    def part(after: str | None) -> DiscrepancyPage:
        return services.records.read(
            lambda connection: read_discrepancies(connection, filters, level, CHUNK_ROWS, after)
        )

    first = part(None)  # an outage now is an answer; later it can only break off the file

    def text() -> Iterator[str]:
        yield HEADER
        yield from lines(first, part)

    name = {"Content-Disposition": 'attachment; filename="discrepancies.csv"'}
    file = StreamingResponse(text(), media_type="text/csv; charset=utf-8", headers=name)
    authenticator.sights.note(request, file, None)
    return file


@router.get("/level")
def level(services: CurrentServices, alpha: Alpha = None, direction: FlagDirection = None) -> Level:
    """How many bins a level flags, and how many of them to expect by chance."""
    chosen, of = services.alpha(alpha), direction or services.settings.flag_direction
    return services.records.read(lambda connection: read_level(connection, chosen, of))


@router.get("/bin", responses=_NOT_THERE, dependencies=[ShowsNumbers])
def bin_(
    services: CurrentServices, id: BinId, bucket: Bucket = None, alpha: Alpha = None, direction: FlagDirection = None
) -> BinDetail:
    """One bin: its latest photo and expected quantity, and everything before."""
    of, chosen = bucket or services.settings.bucket, services.alpha(alpha)
    flagged_for = direction or services.settings.flag_direction
    return services.records.read(lambda connection: read_bin(connection, of, id, chosen, flagged_for))


@router.get("/models")
def models(services: CurrentServices) -> ModelsView:
    """Every model that ever counted: card, figures, confusion matrices, since when it is used."""
    current = services.cards.current()
    return services.records.read(lambda connection: read_models(connection, services.cards.at_hand, current))


@router.get("/slices", responses=_NOT_THERE)
def slices(services: CurrentServices, model: ModelName = None) -> SlicesView:
    """Photos, agreement and flags by slice, the worst first; none without the setting."""
    return services.slices(model)


@router.get("/drift")
def drift(services: CurrentServices) -> DriftView:
    """Each signal's verdict in each window, with its distribution there and in the reference."""
    return view_drift(services.drift.report)
