"""The lists behind the overview's numbers, as JSON, CSV and XLSX."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import Field

from monitor.access.authentication import CurrentAuthenticator, ShowsNumbers
from monitor.api.problem import Problem
from monitor.files import as_bytes, list_document
from monitor.services import CurrentServices, Services
from monitor.views.discrepancies import MAX_PAGE_SIZE
from monitor.views.lists import (
    FAILED,
    MAX_CURSOR_LENGTH,
    PHOTOS_WITHOUT_QUANTITY,
    QUANTITIES_WITHOUT_PHOTO,
    VARIANCES,
    FailedFilters,
    FailedPhoto,
    Item,
    ListedVariance,
    ListFilters,
    Listing,
    ListName,
    ListPage,
    VarianceFilters,
    WithoutPhoto,
    WithoutQuantity,
    read_list,
)

_BAD_CURSOR: Final[dict[int | str, dict[str, Any]]] = {400: {"model": Problem, "description": "an invalid cursor"}}

router = APIRouter(prefix="/api/lists", responses={503: {"model": Problem}})


class _PageQuery(ListFilters):
    limit: int = Field(50, ge=1, le=MAX_PAGE_SIZE, description="maximum number of rows")
    after: str | None = Field(None, max_length=MAX_CURSOR_LENGTH, description="`next` of another response")
    before: str | None = Field(None, max_length=MAX_CURSOR_LENGTH, description="`previous` of another response")


class _FailedPageQuery(_PageQuery, FailedFilters):
    pass


class _VariancePageQuery(_PageQuery, VarianceFilters):
    pass


class FileForm(StrEnum):
    """File formats of a list."""

    CSV = "csv"
    XLSX = "xlsx"


MEDIA_TYPES = {
    FileForm.CSV: "text/csv; charset=utf-8",
    FileForm.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_FILE_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {media.partition(";")[0]: {} for media in MEDIA_TYPES.values()}, "description": "the file"}
}


def _read_page(services: Services, listing: Listing[Item], query: _PageQuery) -> ListPage[Item]:
    return services.records.read(
        lambda connection: read_list(connection, listing, query, query.limit, query.after, query.before)
    )


@router.get("/failed", responses=_BAD_CURSOR)
def failed(services: CurrentServices, query: Annotated[_FailedPageQuery, Query()]) -> ListPage[FailedPhoto]:
    """Photos that could not be counted, with the reason and a remedy, most recently recorded first."""
    return _read_page(services, FAILED, query)


@router.get("/without-quantity", responses=_BAD_CURSOR, dependencies=[ShowsNumbers])
def without_quantity(services: CurrentServices, query: Annotated[_PageQuery, Query()]) -> ListPage[WithoutQuantity]:
    """Bins with a photo and without an expected quantity, sorted by id."""
    return _read_page(services, PHOTOS_WITHOUT_QUANTITY, query)


@router.get("/without-photo", responses=_BAD_CURSOR, dependencies=[ShowsNumbers])
def without_photo(services: CurrentServices, query: Annotated[_PageQuery, Query()]) -> ListPage[WithoutPhoto]:
    """Bins with an expected quantity and without a photo, sorted by id."""
    return _read_page(services, QUANTITIES_WITHOUT_PHOTO, query)


@router.get("/variances", responses=_BAD_CURSOR, dependencies=[ShowsNumbers])
def variances(services: CurrentServices, query: Annotated[_VariancePageQuery, Query()]) -> ListPage[ListedVariance]:
    """Differences between what people counted and what the inventory expects, most recently opened first.

    Inventory systems import the variances with `state=approved`.
    """
    return _read_page(services, VARIANCES, query)


def _file_maker(
    request: Request, services: CurrentServices, authenticator: CurrentAuthenticator, form: FileForm
) -> Callable[[ListName, ListFilters], Response]:
    def make(name: ListName, query: ListFilters) -> Response:
        data = as_bytes(list_document(services.records, name, query), f".{form}")
        headers = {"Content-Disposition": f'attachment; filename="{name}.{form}"'}
        file = Response(data, media_type=MEDIA_TYPES[form], headers=headers)
        if name.has_numbers:
            authenticator.sight_tracker.note_shown(request, file, None)
        return file

    return make


FileMaker = Annotated[Callable[[ListName, ListFilters], Response], Depends(_file_maker)]
"""Type of a route's parameter: a function that makes the file of a list and notes that the browser sees its numbers."""


@router.get("/failed.{form}", response_class=Response, responses=_FILE_RESPONSES)
def failed_file(make: FileMaker, query: Annotated[FailedFilters, Query()]) -> Response:
    """The same list as a file, at most 100,000 photos."""
    return make(ListName.FAILED, query)


@router.get("/without-quantity.{form}", response_class=Response, responses=_FILE_RESPONSES, dependencies=[ShowsNumbers])
def without_quantity_file(make: FileMaker, query: Annotated[ListFilters, Query()]) -> Response:
    """The same list as a file, at most 100,000 bins."""
    return make(ListName.WITHOUT_QUANTITY, query)


@router.get("/without-photo.{form}", response_class=Response, responses=_FILE_RESPONSES, dependencies=[ShowsNumbers])
def without_photo_file(make: FileMaker, query: Annotated[ListFilters, Query()]) -> Response:
    """The same list as a file, at most 100,000 bins."""
    return make(ListName.WITHOUT_PHOTO, query)


@router.get("/variances.{form}", response_class=Response, responses=_FILE_RESPONSES, dependencies=[ShowsNumbers])
def variances_file(make: FileMaker, query: Annotated[VarianceFilters, Query()]) -> Response:
    """The same list as a file, at most 100,000 variances."""
    return make(ListName.VARIANCES, query)
