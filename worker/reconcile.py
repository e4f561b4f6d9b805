"""Finds photos and metadata files in the bucket that have no record, whatever became of their event messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice

from sqlalchemy import Engine as Database

from binwatch.events import ObjectCreated
from binwatch.keys import ObjectKind, Skipped, kind_of, skipped
from binwatch.objects import Listed, Objects
from binwatch.records.crash_counts import Trials
from binwatch.records.queries import unread_metadata, unrecorded_photos
from binwatch.settings import Settings
from binwatch.text import many
from worker.publisher import Publisher
from worker.skipped import OBJECTS, SkippedTally

_PAGE = 1000
_TRIAL = timedelta(hours=1)
"""An object that workers may have died of is left to its own message for so long. Another would cost as many again."""


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
    photos: list[ObjectCreated]
    metadata: list[ObjectCreated]
    skipped: list[tuple[Skipped, str]]
    """Why other objects are not looked at, and their keys."""


@dataclass(slots=True)
class Sent:
    """What one look through the bucket came to."""

    objects: int = 0
    """Photos and metadata files without a record, which were sent to the workers."""
    skipped: SkippedTally = field(default_factory=SkippedTally)

    def __str__(self) -> str:
        sent = f"sent {many(self.objects, *OBJECTS)} without a record"
        return f"{sent}; skipped: {self.skipped}" if self.skipped else sent


def unrecorded(
    objects: Objects,
    database: Database,
    settings: Settings,
    *,
    bucket: str,
    prefix: str = "",
    grace: Grace | None = None,
    model: str | None = None,
    refused: bool = False,
) -> Iterator[Unrecorded]:
    """Look through the bucket, a page at a time.

    With `model`: photos that this version has no record of, whatever others have, and no metadata. With `refused`: also
    what could not be fetched, whenever that was tried last.
    """
    grace, naming = grace or Grace(0), settings.bin_naming
    listing = objects.list(bucket, prefix)
    while page := list(islice(listing, _PAGE)):
        kinds: dict[ObjectKind, list[Listed]] = {kind: [] for kind in ObjectKind}
        for listed in page:
            kinds[kind_of(listed.key, settings.models_prefix)].append(listed)
        if model is not None:
            kinds[ObjectKind.METADATA].clear()
        for kind in (ObjectKind.PHOTO, ObjectKind.METADATA):
            kinds[kind] = list(grace.older(kinds[kind]))
        with database.connect() as connection:
            photos = unrecorded_photos(connection, bucket, kinds[ObjectKind.PHOTO], model, refused=refused)
            metadata = unread_metadata(connection, bucket, kinds[ObjectKind.METADATA], naming, refused=refused)
        total = len(kinds[ObjectKind.PHOTO]) + len(kinds[ObjectKind.METADATA])
        others = list(skipped_keys(kinds[ObjectKind.OTHER], settings))
        yield Unrecorded(total, as_created(bucket, photos), as_created(bucket, metadata), others)


def skipped_keys(listed: Iterable[Listed], settings: Settings) -> Iterator[tuple[Skipped, str]]:
    """Keys of what is neither photo nor metadata nor Binwatch's own, and why each is not looked at."""
    own = (settings.models_prefix, settings.nightly_prefix)
    reasons = ((skipped(one.key, *own), one.key) for one in listed)
    return ((reason, key) for reason, key in reasons if reason is not None)


def send_unrecorded(
    objects: Objects,
    database: Database,
    settings: Settings,
    publisher: Publisher,
    model: str | None = None,
    *,
    refused: bool = False,
) -> Sent:
    """Look through the whole bucket once (for `model` and `refused` as `unrecorded` does)."""
    sent = Sent()
    pages = unrecorded(
        *(objects, database, settings),
        bucket=settings.bucket,
        grace=Grace(settings.reconcile_grace_s),
        model=model,
        refused=refused,
    )
    on_trial = Trials(database).recent(settings.bucket, datetime.now(UTC) - _TRIAL)
    for page in pages:
        photos, metadata = (
            [one for one in objects if one.key not in on_trial] for objects in (page.photos, page.metadata)
        )
        publisher.count(photos)
        publisher.read_metadata(metadata)
        sent.objects += len(photos) + len(metadata)
        sent.skipped.add(page.skipped)
    return sent


def as_created(bucket: str, listed: Iterable[Listed]) -> list[ObjectCreated]:
    """Objects of a listing as tasks carry them."""
    return [ObjectCreated(bucket, one.key, one.modified, one.etag) for one in listed]
