"""Finds photos and metadata files in the bucket that have no record, whatever became of their event messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class Grace:
    """Objects stored in the last so many seconds are left to their event messages. One for each look at a bucket."""

    seconds: float
    young: int = 0
    """How many were left to them."""
    _begun: datetime = field(default_factory=lambda: datetime.now(UTC))

    def older(self, listing: Iterable[Listed]) -> Iterator[Listed]:
        """The objects that are older."""
        newest = self._begun - timedelta(seconds=self.seconds)
        for listed in listing:
            if listed.modified <= newest:
                yield listed
            else:
                self.young += 1


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
    grace: Grace | None = None,
    model: str | None = None,
) -> Iterator[Unrecorded]:
    """Look through the bucket, a page at a time.

    With `model`: photos that this version has no record of, whatever others have, and no metadata.
    """
    wanted = {Kind.PHOTO} if model is not None else {Kind.PHOTO, Kind.METADATA}
    found = (one for one in objects.list(bucket, prefix) if kind_of(one.key, settings.models_prefix) in wanted)
    listing = (grace or Grace(0)).older(found)
    while page := list(islice(listing, _PAGE)):
        kinds: dict[Kind, list[Listed]] = {kind: [] for kind in Kind}
        for listed in page:
            kinds[kind_of(listed.key, settings.models_prefix)].append(listed)
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
    grace = Grace(settings.reconcile_grace_s)
    for page in unrecorded(objects, database, settings, bucket=settings.bucket, grace=grace, model=model):
        sender.count(page.photos)
        sender.read_metadata(page.metadata)
        sent += len(page.photos) + len(page.metadata)
    return sent


def _as_created(bucket: str, listed: list[Listed]) -> list[Created]:
    return [Created(bucket, one.key, one.modified) for one in listed]
