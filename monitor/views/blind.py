"""Bins as a blind auditor sees them, without counts and expected quantities."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel
from sqlalchemy import Connection

from monitor.views.bins import BinDetail
from monitor.views.discrepancies import Filters, read_discrepancies

ITEM = "One item is what is sold as one: a multipack, a set or a bundle counts as 1, whatever is in it."
"""What is counted. Multipacks are what people argue about."""


class BlindPhoto(BaseModel):
    """The photo to count in."""

    id: int
    """The photo is at /photos/{id}."""
    at: datetime
    can_be_shown: bool
    width: int | None
    height: int | None


class BlindArticle(BaseModel):
    """An article that may be in the bin."""

    sku: str
    name: str
    size: str | None


class BlindBin(BaseModel):
    """One bin without any number."""

    bucket: str
    bin_id: str
    photo: BlindPhoto | None
    articles: list[BlindArticle]
    """Those that the inventory lists, however many of each."""
    item: str = ITEM


class QueuedBin(BaseModel):
    """A bin that waits for an auditor."""

    bucket: str
    bin_id: str
    photo_id: int


def without_numbers(detail: BinDetail) -> BlindBin:
    """A bin for a blind auditor."""
    photo, expected = detail.photo, detail.expected
    return BlindBin(
        bucket=detail.bucket,
        bin_id=detail.bin_id,
        photo=BlindPhoto.model_validate(photo.model_dump(include=set(BlindPhoto.model_fields))) if photo else None,
        articles=[
            BlindArticle(sku=item.sku, name=item.name, size=item.size)
            for item in ((expected.items or []) if expected else [])
        ],
    )


def read_queue(connection: Connection, filters: Filters, alpha: float, limit: int) -> list[QueuedBin]:
    """The first bins of the ranking. A cursor would reveal p-values, so there is none; audited bins leave the queue."""
    found = read_discrepancies(connection, filters, alpha, limit).items
    return [QueuedBin(bucket=one.bucket, bin_id=one.bin_id, photo_id=one.photo_id) for one in found]
