"""Metrics, health, the summary as JSON, and photos."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel

from binwatch.errors import ObjectsError
from monitor.api.problem import Problem
from monitor.metrics import registry_of
from monitor.photo_limiter import PhotoLimiter
from monitor.photos import NoPhoto, Size, Unavailable
from monitor.records import MAX_ID
from monitor.services import CurrentServices
from monitor.summary import Summary, summarise
from monitor.totals import read_model_in_use, read_totals

router = APIRouter()

PLACEHOLDERS = {lost: (files("monitor") / "static" / f"photo-{lost}.svg").read_bytes() for lost in Unavailable}
"""SVG images shown instead of a photo."""
ModelName = Annotated[str | None, Query(max_length=100, description="version of the model; default: the one in use")]


class Health(BaseModel):
    """The monitor works."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", responses={503: {"model": Problem}})
def healthz(services: CurrentServices) -> Health:
    """200 if the records can be read now, 503 if not."""
    services.records.read(read_model_in_use, probe=True)
    return Health()


@router.get("/metrics", response_class=Response)
def metrics(services: CurrentServices, accept: Annotated[str, Header()] = "") -> Response:
    """All metrics in the format that the scraper accepts: Prometheus text or OpenMetrics."""
    encode, content_type = choose_encoder(accept)
    return Response(
        encode(registry_of(services)),
        headers={"Content-Type": content_type},
    )


@router.get("/api/summary", responses={404: {"model": Problem}, 503: {"model": Problem}})
def summary(services: CurrentServices, model: ModelName = None) -> Summary:
    """Figures of one model, the same as on the page."""
    return summarise(services.records.read(read_totals), model)


@router.get(
    "/photos/{count_id}",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}, 404: {"model": Problem}, 503: {"model": Problem}},
)
async def photo(
    request: Request,
    services: CurrentServices,
    count_id: Annotated[int, Path(ge=1, le=MAX_ID)],
    size: Size = Size.SMALL,
) -> Response:
    """A counted photo as a JPEG, with a longer side of 320 pixels (small) or 960 pixels (large).

    Photos that were replaced or deleted are available if the bucket keeps versions.
    """
    limiter: PhotoLimiter = request.app.state.photo_limiter
    try:
        jpeg = await limiter.run(lambda: services.photos.jpeg(count_id, size))
    except (NoPhoto, ObjectsError) as error:
        # Browsers display an image whatever the status, so a placeholder can say why there is no photo.
        if "image/" not in request.headers.get("accept", ""):
            raise
        lost, status = (error.reason, 404) if isinstance(error, NoPhoto) else (Unavailable.OUTAGE, 503)
        return Response(PLACEHOLDERS[lost], status, media_type="image/svg+xml")
    # The photo of a count never changes. "private", since shared caches must not serve it to people without access.
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})
