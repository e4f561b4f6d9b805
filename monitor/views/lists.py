"""Lists of the bins and photos behind the overview's numbers: those without a comparison, and variances.

Each list is one query.
"""

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
from monitor.views.discrepancies import MAX_PREFIX_LENGTH
from monitor.views.paging import BadCursor, decode, encode, make_page

MAX_CURSOR_LENGTH = 3_000
"""Maximum length of a cursor in characters. A cursor contains the id of a bin."""


class ListFilters(BaseModel):
    """Filters of a list, combined with AND."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: str | None = Field(
        None,
        max_length=MAX_PREFIX_LENGTH,
        description="prefix of the bin's id or, if it contains a slash and the list has photos, of the photo's key",
    )


class FailedFilters(ListFilters):
    """Filters of the list of photos that could not be counted."""

    reason: str | None = Field(None, max_length=40, description="why the photo could not be counted")
    model: str | None = Field(None, max_length=100, description="version of the model")


class VarianceFilters(ListFilters):
    """Filters of the list of variances."""

    state: VarianceState | None = Field(
        None, description="state of the variance; inventory systems import the `approved` ones"
    )


class FailedPhoto(BaseModel):
    """A photo that could not be counted."""

    bucket: str
    bin_id: str
    key: str
    photo_at: datetime
    """When the photo was stored."""
    reason: str
    """Value of binwatch.errors.Reason."""
    detail: str | None
    remedy: str
    """What to do about it."""
    model: str
    recorded_at: datetime
    latest: bool
    """Whether it is the latest photo of its bin."""


class WithoutQuantity(BaseModel):
    """A bin with a photo and without an expected quantity."""

    bucket: str
    bin_id: str
    key: str
    photo_at: datetime
    model: str
    count: str | None
    """The count as text: "3", "more than 5", "about 17"; None if the photo could not be counted."""
    reason: str | None
    """Why the photo could not be counted; None if it was counted."""
    quantity_file: str | None
    """Metadata file without a valid quantity; None if the bin has no metadata file."""
    quantity_reason: str | None
    """Why the file has no valid quantity (binwatch.errors.MetadataReason)."""
    quantity_detail: str | None


class WithoutPhoto(BaseModel):
    """A bin with an expected quantity and without a photo."""

    bucket: str
    bin_id: str
    expected: int
    expected_at: datetime
    """When the quantity was valid, according to its source."""
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
    """Quantity that the inventory expected when the variance was opened."""
    quantity: int | None
    """Approved quantity, or the one that most people counted; None if no two people counted the same."""
    opened_at: datetime
    closed_at: datetime | None
    """When the variance was approved, rejected or superseded; None while it is undecided."""
    closed_by: str | None
    """Person who approved or rejected the variance."""
    note: str | None
    """Reason for the decision."""


Item = TypeVar("Item", bound=BaseModel)


class ListPage(BaseModel, Generic[Item]):
    """One page of a list, with cursors to the pages before and after it."""

    items: list[Item]
    next: str | None
    """Cursor for `after`; None on the last page."""
    previous: str | None
    """Cursor for `before`; None on the first page."""


Column = InstrumentedAttribute[Any]


@dataclass(frozen=True, slots=True)
class Listing(Generic[Item]):
    """Definition of a list."""

    item: type[Item]
    """Model of a row."""
    statement: Select[*tuple[Any, ...]]
    """Query of the list. Its columns are named like the fields of `item`."""
    order: tuple[Column, ...]
    """Columns to sort by. Together they are unique."""
    bin_id: Column
    key: Column | None = None
    """Column of the photo's key; None if the list has no photos."""
    computed: Mapping[str, Callable[[RowMapping], str | None]] = field(default_factory=dict)
    """Field of `item` → function that computes it from a row of the query."""
    filters: type[ListFilters] = ListFilters
    newest_first: bool = False

    def make_item(self, row: RowMapping) -> Item:
        """Make an item from a row of the query."""
        return self.item.model_validate(dict(row) | {name: compute(row) for name, compute in self.computed.items()})


class ListName(StrEnum):
    """Names of the lists, as in their paths."""

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
    """Return at most `limit` rows after or before a cursor. Raises BadCursor."""
    backwards = before is not None
    cursor = _decode_cursor(listing, before if backwards else after)
    rows = _read_rows(connection, listing, filters, cursor, limit + 1, backwards=backwards)
    page = make_page(rows, limit, is_first=cursor is None, backwards=backwards)
    return ListPage[listing.item](  # type: ignore[name-defined]
        items=[listing.make_item(row) for row in page.rows],
        next=_encode_cursor(listing, page.rows[-1]) if page.has_next else None,
        previous=_encode_cursor(listing, page.rows[0]) if page.has_previous else None,
    )


def _read_rows(
    connection: Connection,
    listing: Listing[Item],
    filters: ListFilters,
    position: Sequence[Any] | None,
    limit: int,
    *,
    backwards: bool,
) -> Sequence[RowMapping]:
    if not is_storable(*(value for value in filters.model_dump().values() if isinstance(value, str))):
        return []
    statement = listing.statement.where(*_conditions(listing, filters))
    descending = listing.newest_first is not backwards
    if position is not None:
        start, columns = tuple_(*position), tuple_(*listing.order)
        statement = statement.where(columns < start if descending else columns > start)
    order = [column.desc() if descending else column.asc() for column in listing.order]
    return connection.execute(statement.order_by(*order).limit(limit)).mappings().all()


def _conditions(listing: Listing[Item], filters: ListFilters) -> Iterator[ColumnElement[bool]]:
    if filters.prefix:
        composed, decomposed = normalize("NFC", filters.prefix), normalize("NFD", filters.prefix)
        if "/" in filters.prefix and listing.key is not None:  # keys may be in any normal form
            yield or_(*(_has_prefix(listing.key, form) for form in sorted({filters.prefix, composed, decomposed})))
        else:
            yield _has_prefix(listing.bin_id, composed)
    if isinstance(filters, VarianceFilters) and filters.state:
        yield Variance.state == filters.state.value
    if isinstance(filters, FailedFilters):
        if filters.reason:
            yield Count.reason == filters.reason
        if filters.model:
            yield Count.model_version == filters.model


def _has_prefix(column: Column, prefix: str) -> ColumnElement[bool]:
    # Not LIKE, which ignores case in SQLite.
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
    computed={"remedy": lambda row: REMEDIES[Reason(row["reason"])] if row["reason"] in REMEDIES else ""},
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
    computed={"count": count_text},
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
    computed={"articles": lambda row: describe_articles(row["contents"] or [])},
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


def _encode_cursor(listing: Listing[Item], row: RowMapping) -> str:
    return encode(json.dumps([row[column.key] for column in listing.order], ensure_ascii=False))


def _decode_cursor(listing: Listing[Item], cursor: str | None) -> list[Any] | None:
    if cursor is None:
        return None
    try:
        position = json.loads(decode(cursor))
    except (ValueError, RecursionError) as error:
        raise BadCursor(cursor) from error
    if not isinstance(position, list) or len(position) != len(listing.order):
        raise BadCursor(cursor)
    for value, column in zip(position, listing.order, strict=True):
        is_id = column in (Count.id, Variance.id)
        valid = type(value) is int and 0 < value <= MAX_ID if is_id else isinstance(value, str) and is_storable(value)
        if not valid:
            raise BadCursor(cursor)
    return position
