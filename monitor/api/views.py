"""The data of the pages as JSON, and the list of discrepancies as CSV."""

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

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Problem}}


@router.get("/overview", responses=_NOT_FOUND, dependencies=[ShowsNumbers])
def overview(
    services: CurrentServices, model: ModelName = None, span: TimeRange = TimeRange.WEEK, alpha: Alpha = None
) -> Overview:
    """Agreement and estimated accuracy over time, drift, open work, and the latest photos."""
    return services.overview(model, span, alpha)


@router.get(
    "/discrepancies",
    responses={400: {"model": Problem, "description": "an invalid cursor"}},
    dependencies=[ShowsNumbers],
)
def discrepancies(services: CurrentServices, query: Annotated[ListQuery, Query()]) -> DiscrepancyPage:
    """Bins whose count differs from the expected quantity, most suspicious first."""
    alpha, filters = services.alpha(query.alpha), services.filters(query)
    return services.records.read(
        lambda connection: read_discrepancies(connection, filters, alpha, query.limit, query.after, query.before)
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
    query: Annotated[FileQuery, Query()],
) -> StreamingResponse:
    """The same list as CSV, at most 100,000 bins."""
    alpha, filters = services.alpha(query.alpha), services.filters(query)

    def read_page(after: str | None) -> DiscrepancyPage:
        return services.records.read(
            lambda connection: read_discrepancies(connection, filters, alpha, CHUNK_ROWS, after)
        )

    # Read the first page before the response starts, so that an outage now becomes an error response. A later one can
    # only cut the file short.
    first_page = read_page(None)

    def text() -> Iterator[str]:
        yield HEADER
        yield from lines(first_page, read_page)

    headers = {"Content-Disposition": 'attachment; filename="discrepancies.csv"'}
    file = StreamingResponse(text(), media_type="text/csv; charset=utf-8", headers=headers)
    authenticator.sight_tracker.note_shown(request, file, None)
    return file


@router.get("/level")
def level(services: CurrentServices, alpha: Alpha = None, direction: FlagDirection = None) -> Level:
    """Number of bins flagged at a level, and how many of them to expect by chance."""
    alpha, direction = services.alpha(alpha), direction or services.settings.flag_direction
    return services.records.read(lambda connection: read_level(connection, alpha, direction))


@router.get("/bin", responses=_NOT_FOUND, dependencies=[ShowsNumbers])
def bin_(
    services: CurrentServices, id: BinId, bucket: Bucket = None, alpha: Alpha = None, direction: FlagDirection = None
) -> BinDetail:
    """One bin: its latest photo and expected quantity, and its history."""
    bucket, alpha = bucket or services.settings.bucket, services.alpha(alpha)
    direction = direction or services.settings.flag_direction
    return services.records.read(lambda connection: read_bin(connection, bucket, id, alpha, direction))


@router.get("/models")
def models(services: CurrentServices) -> ModelsView:
    """All models that have counted photos: card, figures, confusion matrices, and when each was used."""
    current = services.cards.current()
    return services.records.read(lambda connection: read_models(connection, services.cards.get_cached, current))


@router.get("/slices", responses=_NOT_FOUND)
def slices(services: CurrentServices, model: ModelName = None) -> SlicesView:
    """Photos, agreement and flags of each slice, worst first; empty without the setting."""
    return services.slices(model)


@router.get("/drift")
def drift(services: CurrentServices) -> DriftView:
    """Verdict of each signal in each window, with its distributions in the window and in the reference."""
    return view_drift(services.drift.report)
