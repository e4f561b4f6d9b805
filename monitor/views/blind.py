"""Bins as shown to a blind auditor: without counts and expected quantities."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel
from sqlalchemy import Connection

from monitor.views.bins import BinDetail
from monitor.views.discrepancies import Filters, read_discrepancies

ITEM_DEFINITION = "One item is what is sold as one: a multipack, a set or a bundle counts as 1, whatever is in it."
"""What counts as one item. Auditors disagree most about multipacks."""


class BlindPhoto(BaseModel):
    """The photo to count."""

    id: int
    """Id of the count; the photo is at /photos/{id}."""
    at: datetime
    can_be_shown: bool
    width: int | None
    height: int | None


class BlindArticle(BaseModel):
    """An article that the bin may contain."""

    sku: str
    name: str
    size: str | None


class BlindBin(BaseModel):
    """One bin without its numbers."""

    bucket: str
    bin_id: str
    photo: BlindPhoto | None
    articles: list[BlindArticle]
    """Articles that the inventory lists, without their quantities."""
    item: str = ITEM_DEFINITION


class QueuedBin(BaseModel):
    """A bin that waits for an audit."""

    bucket: str
    bin_id: str
    photo_id: int


def without_numbers(detail: BinDetail) -> BlindBin:
    """Return the bin as shown to a blind auditor."""
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
    """Return the first bins of the ranking.

    There is no cursor, since it would reveal p-values. Audited bins leave the queue, so later bins move up.
    """
    bins = read_discrepancies(connection, filters, alpha, limit).items
    return [QueuedBin(bucket=bin_.bucket, bin_id=bin_.bin_id, photo_id=bin_.photo_id) for bin_ in bins]
