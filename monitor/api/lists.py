"""The lists behind the overview's numbers, as JSON, CSV and XLSX."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from monitor.access.authentication import CurrentAuthenticator, ShowsNumbers
from monitor.api.problem import Problem
from monitor.files import as_bytes, list_document
from monitor.services import CurrentServices, Services
from monitor.views.discrepancies import MOST
from monitor.views.lists import (
    FAILED,
    MAX_CURSOR,
    PHOTOS_WITHOUT_QUANTITY,
    QUANTITIES_WITHOUT_PHOTO,
    VARIANCES,
    FailedFilters,
    FailedPhoto,
    ListedVariance,
    ListFilters,
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
    limit: int = Field(50, ge=1, le=MOST, description="rows in the answer at most")
    after: str | None = Field(None, max_length=MAX_CURSOR, description="`next` of an earlier answer")
    before: str | None = Field(None, max_length=MAX_CURSOR, description="`previous` of an earlier answer")


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


@router.get("/failed", responses=_BAD_CURSOR)
def failed(services: CurrentServices, asked: Annotated[_FailedPart, Query()]) -> ListPage[FailedPhoto]:
    """Photos that could not be counted, with the reason and a remedy, those that were recorded last first."""
    return services.records.read(
        lambda connection: read_list(connection, FAILED, asked, asked.limit, asked.after, asked.before)
    )


@router.get("/without-quantity", responses=_BAD_CURSOR, dependencies=[ShowsNumbers])
def without_quantity(services: CurrentServices, asked: Annotated[_Part, Query()]) -> ListPage[WithoutQuantity]:
    """Bins that have a photo and no expected quantity, in the order of their ids."""
    return services.records.read(
        lambda connection: read_list(connection, PHOTOS_WITHOUT_QUANTITY, asked, asked.limit, asked.after, asked.before)
    )


@router.get("/without-photo", responses=_BAD_CURSOR, dependencies=[ShowsNumbers])
def without_photo(services: CurrentServices, asked: Annotated[_Part, Query()]) -> ListPage[WithoutPhoto]:
    """Bins that have an expected quantity and no photo, in the order of their ids."""
    return services.records.read(
        lambda connection: read_list(
            connection, QUANTITIES_WITHOUT_PHOTO, asked, asked.limit, asked.after, asked.before
        )
    )


@router.get("/variances", responses=_BAD_CURSOR, dependencies=[ShowsNumbers])
def variances(services: CurrentServices, asked: Annotated[_VariancePart, Query()]) -> ListPage[ListedVariance]:
    """Differences between what people counted and what the inventory expects, those that were opened last first.

    `state=approved` are those that other systems take.
    """
    return services.records.read(
        lambda connection: read_list(connection, VARIANCES, asked, asked.limit, asked.after, asked.before)
    )


@router.get("/failed.{form}", response_class=Response, responses=_FILES)
def failed_file(services: CurrentServices, form: FileForm, asked: Annotated[FailedFilters, Query()]) -> Response:
    """The same list as a file, at most 100,000 photos."""
    return _file(services, ListName.FAILED, form, asked)


@router.get("/without-quantity.{form}", response_class=Response, responses=_FILES, dependencies=[ShowsNumbers])
def without_quantity_file(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    form: FileForm,
    asked: Annotated[ListFilters, Query()],
) -> Response:
    """The same list as a file, at most 100,000 bins."""
    return _with_numbers(request, authenticator, _file(services, ListName.WITHOUT_QUANTITY, form, asked))


@router.get("/without-photo.{form}", response_class=Response, responses=_FILES, dependencies=[ShowsNumbers])
def without_photo_file(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    form: FileForm,
    asked: Annotated[ListFilters, Query()],
) -> Response:
    """The same list as a file, at most 100,000 bins."""
    return _with_numbers(request, authenticator, _file(services, ListName.WITHOUT_PHOTO, form, asked))


@router.get("/variances.{form}", response_class=Response, responses=_FILES, dependencies=[ShowsNumbers])
def variances_file(
    request: Request,
    services: CurrentServices,
    authenticator: CurrentAuthenticator,
    form: FileForm,
    asked: Annotated[VarianceFilters, Query()],
) -> Response:
    """The same list as a file, at most 100,000 variances."""
    return _with_numbers(request, authenticator, _file(services, ListName.VARIANCES, form, asked))


def _with_numbers(request: Request, authenticator: CurrentAuthenticator, file: Response) -> Response:
    """Note that the browser has seen the numbers of all bins."""
    authenticator.sights.note(request, file, None)
    return file


def _file(services: Services, name: ListName, form: FileForm, asked: ListFilters) -> Response:
    data = as_bytes(list_document(services.records, name, asked), f".{form}")
    headers = {"Content-Disposition": f'attachment; filename="{name}.{form}"'}
    return Response(data, media_type=MEDIA_TYPES[form], headers=headers)
