"""Find photos and metadata files in the bucket without a record, for example because event messages were lost."""

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
from worker.skipped import OBJECT_NOUNS, SkippedTally

_PAGE_SIZE = 1000
_TRIAL_PERIOD = timedelta(hours=1)
"""How long an object that may have crashed workers is not sent again, since another message could crash more."""


@dataclass(slots=True)
class GracePeriod:
    """Leaves objects stored in the last `seconds` to their event messages, during one pass over a bucket."""

    seconds: float
    young: int = 0
    """Number of objects that were left to their event messages."""
    _started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def filter_older(self, listing: Iterable[ListedObject]) -> Iterator[ListedObject]:
        """Yield the objects older than the grace period, and count the others as `young`."""
        latest = self._started_at - timedelta(seconds=self.seconds)
        for listed in listing:
            if listed.modified <= latest:
                yield listed
            else:
                self.young += 1


@dataclass(frozen=True, slots=True)
class UnrecordedPage:
    """Objects without a record in one page of a listing."""

    listed: int
    """Number of photos and metadata files in the page, recorded or not, apart from those in the grace period."""
    photos: list[ObjectCreated]
    metadata: list[ObjectCreated]
    skipped: list[tuple[SkipReason, str]]
    """Other objects: the reason for skipping each, and its key."""


@dataclass(slots=True)
class ReconcileResult:
    """Result of one pass over the bucket."""

    objects: int = 0
    """Number of photos and metadata files without a record that were sent to the workers."""
    skipped: SkippedTally = field(default_factory=SkippedTally)

    def __str__(self) -> str:
        sent = f"sent {count_noun(self.objects, *OBJECT_NOUNS)} without a record"
        return f"{sent}; skipped: {self.skipped}" if self.skipped else sent


def unrecorded_pages(
    objects: Objects,
    database: Database,
    settings: Settings,
    *,
    bucket: str,
    prefix: str = "",
    grace: GracePeriod | None = None,
    model: str | None = None,
    retry_all: bool = False,
) -> Iterator[UnrecordedPage]:
    """Yield the objects without a record, a page of the bucket's listing at a time.

    With `model`: only photos without a record of this model version, and no metadata files. With `retry_all`: also all
    objects that could not be fetched, however recent the last attempt.
    """
    grace, naming = grace or GracePeriod(0), settings.bin_naming
    listing = objects.list(bucket, prefix)
    while page := list(islice(listing, _PAGE_SIZE)):
        kinds: dict[ObjectKind, list[ListedObject]] = {kind: [] for kind in ObjectKind}
        for listed in page:
            kinds[kind_of(listed.key, settings.models_prefix)].append(listed)
        if model is not None:
            kinds[ObjectKind.METADATA].clear()
        for kind in (ObjectKind.PHOTO, ObjectKind.METADATA):
            kinds[kind] = list(grace.filter_older(kinds[kind]))
        with database.connect() as connection:
            photos = unrecorded_photos(connection, bucket, kinds[ObjectKind.PHOTO], model, retry_all=retry_all)
            metadata = unread_metadata(connection, bucket, kinds[ObjectKind.METADATA], naming, retry_all=retry_all)
        yield UnrecordedPage(
            listed=len(kinds[ObjectKind.PHOTO]) + len(kinds[ObjectKind.METADATA]),
            photos=to_created_objects(bucket, photos),
            metadata=to_created_objects(bucket, metadata),
            skipped=list(skipped_keys(kinds[ObjectKind.OTHER], settings)),
        )


def skipped_keys(listing: Iterable[ListedObject], settings: Settings) -> Iterator[tuple[SkipReason, str]]:
    """Yield reason and key of each object that is neither a photo, nor a metadata file, nor one of Binwatch's own."""
    own_prefixes = (settings.models_prefix, settings.nightly_prefix)
    reasons = ((skip_reason(listed.key, *own_prefixes), listed.key) for listed in listing)
    return ((reason, key) for reason, key in reasons if reason is not None)


def send_unrecorded(
    objects: Objects,
    database: Database,
    settings: Settings,
    publisher: Publisher,
    model: str | None = None,
    *,
    retry_all: bool = False,
) -> ReconcileResult:
    """Send all objects of the bucket without a record to the workers; `model`, `retry_all`: see `unrecorded_pages`."""
    result = ReconcileResult()
    pages = unrecorded_pages(
        *(objects, database, settings),
        bucket=settings.bucket,
        grace=GracePeriod(settings.reconcile_grace_s),
        model=model,
        retry_all=retry_all,
    )
    on_trial = CrashCounts(database).started_since(settings.bucket, datetime.now(UTC) - _TRIAL_PERIOD)
    for page in pages:
        photos, metadata = (
            [item for item in items if item.key not in on_trial] for items in (page.photos, page.metadata)
        )
        publisher.count(photos)
        publisher.read_metadata(metadata)
        result.objects += len(photos) + len(metadata)
        result.skipped.add(page.skipped)
    return result


def to_created_objects(bucket: str, listing: Iterable[ListedObject]) -> list[ObjectCreated]:
    """Convert the objects of a listing to arguments of tasks."""
    return [ObjectCreated(bucket, listed.key, listed.modified, listed.etag) for listed in listing]
