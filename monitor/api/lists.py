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


class _Part(ListFilters):
    limit: int = Field(50, ge=1, le=MAX_PAGE_SIZE, description="rows in the answer at most")
    after: str | None = Field(None, max_length=MAX_CURSOR_LENGTH, description="`next` of an earlier answer")
    before: str | None = Field(None, max_length=MAX_CURSOR_LENGTH, description="`previous` of an earlier answer")


class _FailedPart(_Part, FailedFilters):
    pass


class _VariancePart(_Part, VarianceFilters):
    pass


class FileForm(StrEnum):
    """Formats of a list as a file."""

    CSV = "csv"
    XLSX = "xlsx"


MEDIA_TYPES = {
    FileForm.CSV: "text/csv; charset=utf-8",
    FileForm.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_FILES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {media.partition(";")[0]: {} for media in MEDIA_TYPES.values()}, "description": "the file"}
}


def _page(services: Services, listing: Listing[Item], asked: _Part) -> ListPage[Item]:
    return services.records.read(
        lambda connection: read_list(connection, listing, asked, asked.limit, asked.after, asked.before)
    )


@router.get("/failed", responses=_BAD_CURSOR)
def failed(services: CurrentServices, asked: Annotated[_FailedPart, Query()]) -> ListPage[FailedPhoto]:
    """Photos that could not be counted, with the reason and a remedy. The last recorded photo comes first."""
    return _page(services, FAILED, asked)


@router.get("/without-quantity", responses=_BAD_CURSOR, dependencies=[ShowsNumbers])
def without_quantity(services: CurrentServices, asked: Annotated[_Part, Query()]) -> ListPage[WithoutQuantity]:
    """Bins that have a photo and no expected quantity, in the order of their ids."""
    return _page(services, PHOTOS_WITHOUT_QUANTITY, asked)


@router.get("/without-photo", responses=_BAD_CURSOR, dependencies=[ShowsNumbers])
def without_photo(services: CurrentServices, asked: Annotated[_Part, Query()]) -> ListPage[WithoutPhoto]:
    """Bins that have an expected quantity and no photo, in the order of their ids."""
    return _page(services, QUANTITIES_WITHOUT_PHOTO, asked)


@router.get("/variances", responses=_BAD_CURSOR, dependencies=[ShowsNumbers])
def variances(services: CurrentServices, asked: Annotated[_VariancePart, Query()]) -> ListPage[ListedVariance]:
    """Differences between what people counted and what the inventory expects. The last opened variance comes first.

    Other systems take those with `state=approved`.
    """
    return _page(services, VARIANCES, asked)


def _file_maker(
    request: Request, services: CurrentServices, authenticator: CurrentAuthenticator, form: FileForm
) -> Callable[[ListName, ListFilters], Response]:
    def make(name: ListName, asked: ListFilters) -> Response:
        data = as_bytes(list_document(services.records, name, asked), f".{form}")
        headers = {"Content-Disposition": f'attachment; filename="{name}.{form}"'}
        file = Response(data, media_type=MEDIA_TYPES[form], headers=headers)
        if name.has_numbers:
            authenticator.sights.note(request, file, None)
        return file

    return make


FileMaker = Annotated[Callable[[ListName, ListFilters], Response], Depends(_file_maker)]
"""Type of a route's parameter that makes the file of a list, and notes that the browser has seen its numbers."""


@router.get("/failed.{form}", response_class=Response, responses=_FILES)
def failed_file(make: FileMaker, asked: Annotated[FailedFilters, Query()]) -> Response:
    """The same list as a file, at most 100,000 photos."""
    return make(ListName.FAILED, asked)


@router.get("/without-quantity.{form}", response_class=Response, responses=_FILES, dependencies=[ShowsNumbers])
def without_quantity_file(make: FileMaker, asked: Annotated[ListFilters, Query()]) -> Response:
    """The same list as a file, at most 100,000 bins."""
    return make(ListName.WITHOUT_QUANTITY, asked)


@router.get("/without-photo.{form}", response_class=Response, responses=_FILES, dependencies=[ShowsNumbers])
def without_photo_file(make: FileMaker, asked: Annotated[ListFilters, Query()]) -> Response:
    """The same list as a file, at most 100,000 bins."""
    return make(ListName.WITHOUT_PHOTO, asked)


@router.get("/variances.{form}", response_class=Response, responses=_FILES, dependencies=[ShowsNumbers])
def variances_file(make: FileMaker, asked: Annotated[VarianceFilters, Query()]) -> Response:
    """The same list as a file, at most 100,000 variances."""
    return make(ListName.VARIANCES, asked)
