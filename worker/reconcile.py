"""Finds photos and metadata files in the bucket that have no record, whatever became of their event messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from sqlalchemy import Engine as Database

from binwatch.events import Created
from binwatch.keys import Kind, kind_of
from binwatch.objects import Listed, Objects
from binwatch.records.queries import unread_metadata, unrecorded_photos
from binwatch.settings import Settings
from worker.sending import Sender

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """What one page of a listing has without a record. `listed` counts all photos and metadata files of the page."""

    listed: int
    photos: list[Created]
    metadata: list[Created]


def unrecorded(
    objects: Objects,
    database: Database,
    settings: Settings,
    *,
    bucket: str,
    prefix: str = "",
    grace_s: float = 0.0,
    model: str | None = None,
) -> Iterator[Unrecorded]:
    """Look through the bucket, a page at a time. Objects younger than `grace_s` seconds are passed over.

    With `model`: photos that this version has no record of, whatever others have, and no metadata.
    """
    newest = datetime.now(UTC) - timedelta(seconds=grace_s)
    listing = (listed for listed in objects.list(bucket, prefix) if listed.modified <= newest)
    while page := list(islice(listing, _PAGE)):
        kinds: dict[Kind, list[Listed]] = {kind: [] for kind in Kind}
        for listed in page:
            kinds[kind_of(listed.key, settings.models_prefix)].append(listed)
        if model is not None:
            kinds[Kind.METADATA].clear()
        with database.connect() as connection:
            photos = unrecorded_photos(connection, bucket, kinds[Kind.PHOTO], model)
            metadata = unread_metadata(connection, bucket, kinds[Kind.METADATA])
        total = len(kinds[Kind.PHOTO]) + len(kinds[Kind.METADATA])
        yield Unrecorded(total, _as_created(bucket, photos), _as_created(bucket, metadata))


def send_unrecorded(
    objects: Objects, database: Database, settings: Settings, sender: Sender, model: str | None = None
) -> int:
    """Look through the whole bucket once (for `model` as `unrecorded` does); returns how many objects were sent."""
    sent = 0
    bucket, grace_s = settings.bucket, settings.reconcile_grace_s
    for page in unrecorded(objects, database, settings, bucket=bucket, grace_s=grace_s, model=model):
        sender.count(page.photos)
        sender.read_metadata(page.metadata)
        sent += len(page.photos) + len(page.metadata)
    return sent


def _as_created(bucket: str, listed: list[Listed]) -> list[Created]:
    return [Created(bucket, one.key, one.modified) for one in listed]
