"""The lists behind the overview's numbers: bins and photos without a comparison, and variances. One query each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar
from unicodedata import normalize

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Connection, RowMapping, Select, func, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from binwatch.errors import REMEDIES, Reason
from binwatch.metadata import describe_articles
from binwatch.records.engine import is_storable
from binwatch.records.tables import (
    WITHOUT_PHOTO,
    WITHOUT_QUANTITY,
    Bin,
    Count,
    Expectation,
    Variance,
    VarianceEntry,
)
from binwatch.records.variances import VarianceState, VarianceStep
from monitor.recent_photos import count_text
from monitor.records import MAX_ID
from monitor.views.discrepancies import MAX_PREFIX
from monitor.views.paging import BadCursor, decode, encode, part_of

MAX_CURSOR = 3_000
"""Characters of a cursor: it holds a bin's id."""


class ListFilters(BaseModel):
    """Which rows of a list. All that are set must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: str | None = Field(
        None,
        max_length=MAX_PREFIX,
        description="how the bin's id begins; with a slash in it, how the photo's key begins, if the list has photos",
    )


class FailedFilters(ListFilters):
    """Which photos that could not be counted."""

    reason: str | None = Field(None, max_length=40, description="why the photo could not be counted")
    model: str | None = Field(None, max_length=100, description="version of the model that tried")


class VarianceFilters(ListFilters):
    """Which variances."""

    state: VarianceState | None = Field(
        None, description="state of the variance; other systems take those that are `approved`"
    )


class FailedPhoto(BaseModel):
    """A photo that could not be counted."""

    bucket: str
    bin_id: str
    key: str
    photo_at: datetime
    """When the photo was stored."""
    reason: str
    """binwatch.errors.Reason."""
    detail: str | None
    remedy: str
    """What a person can do about it."""
    model: str
    recorded_at: datetime
    latest: bool
    """Whether it still is the latest photo of its bin."""


class WithoutQuantity(BaseModel):
    """A bin that has a photo and no expected quantity."""

    bucket: str
    bin_id: str
    key: str
    photo_at: datetime
    model: str
    count: str | None
    """In words: "3", "more than 5", "about 17"; None if the photo could not be counted."""
    reason: str | None
    """Why the photo could not be counted; None if it was."""
    quantity_file: str | None
    """The metadata file that gave no quantity; None if there is none."""
    quantity_reason: str | None
    """Why it gave none (binwatch.errors.MetadataReason)."""
    quantity_detail: str | None


class WithoutPhoto(BaseModel):
    """A bin that has an expected quantity and no photo."""

    bucket: str
    bin_id: str
    expected: int
    expected_at: datetime
    """When the quantity was valid, by its source."""
    source: str
    """Key of the metadata file, or name of the imported file."""
    articles: str


class ListedVariance(BaseModel):
    """A difference between what people counted and what the inventory expected."""

    id: int
    bucket: str
    bin_id: str
    state: VarianceState
    expected: int
    """Items that the inventory expected when it was opened."""
    quantity: int | None
    """Items that most people found, or that were approved; None if no two found the same."""
    opened_at: datetime
    closed_at: datetime | None
    """When it was approved, rejected or superseded; None while it is undecided."""
    closed_by: str | None
    """Who approved or rejected it."""
    note: str | None
    """Why."""


Item = TypeVar("Item", bound=BaseModel)


class ListPage(BaseModel, Generic[Item]):
    """Some rows of a list, and how to get those beside them."""

    items: list[Item]
    next: str | None
    """Cursor for `after`; None on the last page."""
    previous: str | None
    """Cursor for `before`; None on the first page."""


Column = InstrumentedAttribute[Any]


@dataclass(frozen=True, slots=True)
class Listing(Generic[Item]):
    """A list: its rows, and their order, in which no two rows are equal."""

    row: type[Item]
    statement: Select[*tuple[Any, ...]]
    """Its columns have the names of the fields of `row`."""
    order: tuple[Column, ...]
    bin_id: Column
    key: Column | None = None
    """The photo's key, if there is one."""
    more: Mapping[str, Callable[[RowMapping], str | None]] = field(default_factory=dict)
    """Fields of `row` that follow from several columns."""
    filters: type[ListFilters] = ListFilters
    newest_first: bool = False

    def make(self, row: RowMapping) -> Item:
        """One row of the list."""
        return self.row.model_validate(dict(row) | {name: of(row) for name, of in self.more.items()})


class ListName(StrEnum):
    """The lists."""

    FAILED = "failed"
    WITHOUT_QUANTITY = "without-quantity"
    WITHOUT_PHOTO = "without-photo"
    VARIANCES = "variances"

    @property
    def has_numbers(self) -> bool:
        """Whether the list shows counts or expected quantities, which blind auditors must not see."""
        return self is not ListName.FAILED


TITLES = {
    ListName.FAILED: "Photos not counted",
    ListName.WITHOUT_QUANTITY: "Photos without quantity",
    ListName.WITHOUT_PHOTO: "Quantities without photo",
    ListName.VARIANCES: "Variances",
}


def read_list(
    connection: Connection,
    listing: Listing[Item],
    filters: ListFilters,
    limit: int = 50,
    after: str | None = None,
    before: str | None = None,
) -> ListPage[Item]:
    """At most `limit` rows after or before a cursor. Raises BadCursor."""
    backwards = before is not None
    cursor = _place(listing, before if backwards else after)
    rows = _rows(connection, listing, filters, cursor, limit + 1, backwards=backwards)
    part = part_of(rows, limit, is_first=cursor is None, backwards=backwards)
    return ListPage[listing.row](  # type: ignore[name-defined]
        items=[listing.make(row) for row in part.rows],
        next=_cursor(listing, part.rows[-1]) if part.has_next else None,
        previous=_cursor(listing, part.rows[0]) if part.has_previous else None,
    )


def _rows(
    connection: Connection,
    listing: Listing[Item],
    filters: ListFilters,
    place: Sequence[Any] | None,
    limit: int,
    *,
    backwards: bool,
) -> Sequence[RowMapping]:
    if not is_storable(*(value for value in filters.model_dump().values() if isinstance(value, str))):
        return []
    statement = listing.statement.where(*_conditions(listing, filters))
    downwards = listing.newest_first is not backwards
    if place is not None:
        here, columns = tuple_(*place), tuple_(*listing.order)
        statement = statement.where(columns < here if downwards else columns > here)
    order = [column.desc() if downwards else column.asc() for column in listing.order]
    return connection.execute(statement.order_by(*order).limit(limit)).mappings().all()


def _conditions(listing: Listing[Item], filters: ListFilters) -> Iterator[ColumnElement[bool]]:
    if filters.prefix:
        composed, decomposed = normalize("NFC", filters.prefix), normalize("NFD", filters.prefix)
        if "/" in filters.prefix and listing.key is not None:  # which is as its uploader wrote it
            yield or_(*(_begins(listing.key, form) for form in sorted({filters.prefix, composed, decomposed})))
        else:
            yield _begins(listing.bin_id, composed)
    if isinstance(filters, VarianceFilters) and filters.state:
        yield Variance.state == filters.state.value
    if isinstance(filters, FailedFilters):
        if filters.reason:
            yield Count.reason == filters.reason
        if filters.model:
            yield Count.model_version == filters.model


def _begins(column: Column, prefix: str) -> ColumnElement[bool]:
    # Not LIKE, which on SQLite takes no account of case.
    return func.substr(column, 1, len(prefix)) == prefix


FAILED = Listing(
    FailedPhoto,
    select(
        *(Count.id, Count.bucket, Count.bin_id, Count.key, Count.modified_at.label("photo_at"), Count.reason),
        *(Count.detail, Count.model_version.label("model"), Count.recorded_at),
        Bin.bin_id.is_not(None).label("latest"),
    )
    .outerjoin(Bin, (Bin.bucket == Count.bucket) & (Bin.bin_id == Count.bin_id) & (Bin.count_id == Count.id))
    .where(Count.reason.is_not(None)),
    (Count.id,),
    Count.bin_id,
    Count.key,
    more={"remedy": lambda row: REMEDIES[Reason(row["reason"])] if row["reason"] in REMEDIES else ""},
    filters=FailedFilters,
    newest_first=True,
)

PHOTOS_WITHOUT_QUANTITY = Listing(
    WithoutQuantity,
    select(
        *(Bin.bin_id, Bin.bucket, Count.key, Bin.photo_at, Count.model_version.label("model"), Count.predicted),
        *(Count.reason, Count.distribution, Expectation.source.label("quantity_file")),
        Expectation.reason.label("quantity_reason"),
        Expectation.detail.label("quantity_detail"),
    )
    .join(Count, Count.id == Bin.count_id)
    .outerjoin(Expectation, Expectation.id == Bin.expectation_id)
    .where(WITHOUT_QUANTITY),
    (Bin.bin_id, Bin.bucket),
    Bin.bin_id,
    Count.key,
    more={"count": count_text},
)

QUANTITIES_WITHOUT_PHOTO = Listing(
    WithoutPhoto,
    select(
        *(Bin.bin_id, Bin.bucket, Expectation.quantity.label("expected"), Expectation.source),
        *(Expectation.modified_at.label("expected_at"), Expectation.contents),
    )
    .join(Expectation, Expectation.id == Bin.expectation_id)
    .where(WITHOUT_PHOTO),
    (Bin.bin_id, Bin.bucket),
    Bin.bin_id,
    more={"articles": lambda row: describe_articles(row["contents"] or [])},
)

VARIANCES = Listing(
    ListedVariance,
    select(
        *(Variance.id, Variance.bucket, Variance.bin_id, Variance.state, Variance.expected, Variance.quantity),
        *(Variance.opened_at, Variance.closed_at, VarianceEntry.person.label("closed_by"), VarianceEntry.note),
    ).outerjoin(
        VarianceEntry, (VarianceEntry.variance_id == Variance.id) & (VarianceEntry.step != VarianceStep.COUNTED)
    ),
    (Variance.id,),
    Variance.bin_id,
    filters=VarianceFilters,
    newest_first=True,
)

LISTS: dict[ListName, Listing[Any]] = {
    ListName.FAILED: FAILED,
    ListName.WITHOUT_QUANTITY: PHOTOS_WITHOUT_QUANTITY,
    ListName.WITHOUT_PHOTO: QUANTITIES_WITHOUT_PHOTO,
    ListName.VARIANCES: VARIANCES,
}


def _cursor(listing: Listing[Item], row: RowMapping) -> str:
    return encode(json.dumps([row[column.key] for column in listing.order], ensure_ascii=False))


def _place(listing: Listing[Item], cursor: str | None) -> list[Any] | None:
    if cursor is None:
        return None
    try:
        place = json.loads(decode(cursor))
    except (ValueError, RecursionError) as error:
        raise BadCursor(cursor) from error
    if not isinstance(place, list) or len(place) != len(listing.order):
        raise BadCursor(cursor)
    for value, column in zip(place, listing.order, strict=True):
        is_id = column in (Count.id, Variance.id)
        fits = type(value) is int and 0 < value <= MAX_ID if is_id else isinstance(value, str) and is_storable(value)
        if not fits:
            raise BadCursor(cursor)
    return place
