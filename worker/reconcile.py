"""Finds photos and metadata files in the bucket without a record, for example because event messages were lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice

from sqlalchemy import Engine as Database

from binwatch.events import ObjectCreated
from binwatch.keys import ObjectKind, SkipReason, kind_of, skip_reason
from binwatch.objects import ListedObject, Objects
from binwatch.records.crash_counts import CrashCounts
from binwatch.records.queries import unread_metadata, unrecorded_photos
from binwatch.settings import Settings
from binwatch.text import count_noun
from worker.publisher import Publisher
from worker.skipped import OBJECTS, SkippedTally

_PAGE = 1000
_TRIAL = timedelta(hours=1)
"""An object that may have crashed workers is not sent again for this time, since another message could crash more."""


@dataclass(slots=True)
class Grace:
    """Grace period: objects stored in the last `seconds` are left to their event messages. For one pass of a bucket."""

    seconds: float
    young: int = 0
    """Number of objects that were left to their event messages."""
    _begun: datetime = field(default_factory=lambda: datetime.now(UTC))

    def older(self, listing: Iterable[ListedObject]) -> Iterator[ListedObject]:
        """The objects older than the grace period."""
        newest = self._begun - timedelta(seconds=self.seconds)
        for listed in listing:
            if listed.modified <= newest:
                yield listed
            else:
                self.young += 1


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """Objects without a record in one page of a listing. `listed`: number of photos and metadata files in the page."""

    listed: int
    photos: list[ObjectCreated]
    metadata: list[ObjectCreated]
    skipped: list[tuple[SkipReason, str]]
    """Other objects: the reason for skipping each, and its key."""


@dataclass(slots=True)
class Sent:
    """Result of one pass of the bucket."""

    objects: int = 0
    """Number of photos and metadata files without a record, which were sent to the workers."""
    skipped: SkippedTally = field(default_factory=SkippedTally)

    def __str__(self) -> str:
        sent = f"sent {count_noun(self.objects, *OBJECTS)} without a record"
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
    """Find the objects without a record, a page of the bucket's listing at a time.

    With `model`: photos without a record of this version, and no metadata files. With `refused`: also all objects that
    could not be fetched, however recently that was tried.
    """
    grace, naming = grace or Grace(0), settings.bin_naming
    listing = objects.list(bucket, prefix)
    while page := list(islice(listing, _PAGE)):
        kinds: dict[ObjectKind, list[ListedObject]] = {kind: [] for kind in ObjectKind}
        for listed in page:
            kinds[kind_of(listed.key, settings.models_prefix)].append(listed)
        if model is not None:
            kinds[ObjectKind.METADATA].clear()
        for kind in (ObjectKind.PHOTO, ObjectKind.METADATA):
            kinds[kind] = list(grace.older(kinds[kind]))
        with database.connect() as connection:
            photos = unrecorded_photos(connection, bucket, kinds[ObjectKind.PHOTO], model, retry_all=refused)
            metadata = unread_metadata(connection, bucket, kinds[ObjectKind.METADATA], naming, retry_all=refused)
        total = len(kinds[ObjectKind.PHOTO]) + len(kinds[ObjectKind.METADATA])
        others = list(skipped_keys(kinds[ObjectKind.OTHER], settings))
        yield Unrecorded(total, as_created(bucket, photos), as_created(bucket, metadata), others)


def skipped_keys(listed: Iterable[ListedObject], settings: Settings) -> Iterator[tuple[SkipReason, str]]:
    """Reason and key of each object that is neither a photo, a metadata file nor one of Binwatch's own objects."""
    own = (settings.models_prefix, settings.nightly_prefix)
    reasons = ((skip_reason(one.key, *own), one.key) for one in listed)
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
    """Send all objects of the bucket without a record to the workers; `model` and `refused` as for `unrecorded`."""
    sent = Sent()
    pages = unrecorded(
        *(objects, database, settings),
        bucket=settings.bucket,
        grace=Grace(settings.reconcile_grace_s),
        model=model,
        refused=refused,
    )
    on_trial = CrashCounts(database).started_since(settings.bucket, datetime.now(UTC) - _TRIAL)
    for page in pages:
        photos, metadata = (
            [one for one in objects if one.key not in on_trial] for objects in (page.photos, page.metadata)
        )
        publisher.count(photos)
        publisher.read_metadata(metadata)
        sent.objects += len(photos) + len(metadata)
        sent.skipped.add(page.skipped)
    return sent


def as_created(bucket: str, listed: Iterable[ListedObject]) -> list[ObjectCreated]:
    """Objects of a listing as arguments of tasks."""
    return [ObjectCreated(bucket, one.key, one.modified, one.etag) for one in listed]
