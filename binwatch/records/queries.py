"""Queries of the records that several packages need. Each function runs in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, select

from binwatch.bin_naming import BY_FILE_NAME, BinNaming
from binwatch.errors import NOT_FETCHED, MetadataReason, Reason
from binwatch.events import ObjectCreated
from binwatch.objects import ListedObject
from binwatch.records.tables import Count, Expectation

Item = TypeVar("Item")
_CHUNK_SIZE = 500
"""Number of objects per statement. SQLite allows 32,766 parameters in a statement."""
_NEVER = datetime.max.replace(tzinfo=UTC)
_MIN_RETRY_WAIT, _MAX_RETRY_WAIT = timedelta(minutes=10), timedelta(days=1)
"""Bounds of the wait before an object that could not be fetched is tried again. Retries depend on time, since granting
a permission changes nothing in a listing."""
_FailedFetches = tuple[datetime, datetime, str]
"""Times of the first and the last attempt to fetch an object, and the reason of the failure."""


def unrecorded_photos(
    connection: Connection,
    bucket: str,
    listed: Sequence[ListedObject],
    model: str | None = None,
    *,
    retry_all: bool = False,
) -> list[ListedObject]:
    """Return the listed photos whose current upload is not recorded by any model or, with `model`, by that version.

    A photo that was replaced and then restored is included, since its bin has had another photo meanwhile. A photo
    that could not be fetched is included after a wait as long as the time for which it has been failing, at least ten
    minutes and at most a day. With `retry_all`, there is no wait.
    """
    query = select(Count.key, Count.etag, Count.modified_at, Count.reason, Count.recorded_at, Count.tried_at)
    query = query.where(Count.bucket == bucket)
    if model is not None:
        query = query.where(Count.model_version == model)
    recorded = _RecordedUploads(retry_all=retry_all)
    for chunk in _chunks(listed):
        recorded.add(connection.execute(query.where(Count.key.in_([photo.key for photo in chunk]))))
    return [photo for photo in listed if photo not in recorded]


def unread_metadata(
    connection: Connection,
    bucket: str,
    listed: Sequence[ListedObject],
    naming: BinNaming = BY_FILE_NAME,
    *,
    retry_all: bool = False,
) -> list[ListedObject]:
    """Return the listed metadata files whose current upload is not recorded. Retries are as in `unrecorded_photos`."""
    query = select(
        *(Expectation.source, Expectation.etag, Expectation.modified_at),
        *(Expectation.reason, Expectation.recorded_at, Expectation.tried_at),
    ).where(Expectation.bucket == bucket)
    recorded = _RecordedUploads(retry_all=retry_all)
    for chunk in _chunks(listed):
        recorded.add(connection.execute(query.where(_is_of_bins(chunk, naming))))
    return [file for file in listed if file not in recorded]


class _RecordedUploads:
    """The set of uploads that are recorded and not due for another fetch."""

    def __init__(self, *, retry_all: bool) -> None:
        """With `retry_all`, uploads that could not be fetched are always due."""
        self._last_modified: dict[tuple[str, str], datetime] = {}
        self._unfetched: dict[tuple[str, str], _FailedFetches] = {}
        self._fetched: set[tuple[str, str]] = set()
        self._retry_all = retry_all
        self._now = datetime.now(UTC)

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows of key, ETag, time of the upload, reason, and times of recording and of the last attempt."""
        for key, etag, modified_at, reason, recorded_at, tried_at in rows:
            upload = key, etag
            self._last_modified[upload] = max(modified_at, self._last_modified.get(upload, modified_at))
            if reason in NOT_FETCHED:
                first, last, _ = self._unfetched.get(upload, (recorded_at, recorded_at, reason))
                self._unfetched[upload] = min(first, recorded_at), max(last, tried_at or recorded_at), reason
            else:
                self._fetched.add(upload)

    def __contains__(self, listed: ListedObject) -> bool:
        upload = listed.key, listed.etag
        last_modified = self._last_modified.get(upload)
        if last_modified is None or last_modified < listed.modified:
            return False
        if upload in self._fetched:
            return True
        first_tried, last_tried, reason = self._unfetched[upload]
        wait = min(max(last_tried - first_tried, _MIN_RETRY_WAIT), _MAX_RETRY_WAIT)
        is_restored = reason == Reason.ARCHIVED and listed.restored
        return not (self._retry_all or is_restored or self._now - last_tried >= wait)


def recorded_keys(
    connection: Connection,
    bucket: str,
    objects: Iterable[ObjectCreated],
    model: str | None = None,
    naming: BinNaming = BY_FILE_NAME,
) -> dict[str, bool]:
    """Find the photos and metadata files whose current upload is recorded: key → whether it was counted or read.

    With `model`, only this version's records of photos are considered.
    """
    succeeded: dict[str, bool] = {}
    for chunk in _chunks(list(objects)):
        stored_at = {item.key: item.time for item in chunk}
        photos = select(Count.key, Count.modified_at, Count.reason)
        photos = photos.where(Count.bucket == bucket, Count.key.in_(list(stored_at)))
        if model is not None:
            photos = photos.where(Count.model_version == model)
        files = select(Expectation.source, Expectation.modified_at, Expectation.reason)
        files = files.where(Expectation.bucket == bucket, _is_of_bins(chunk, naming))
        for key, modified_at, reason in (*connection.execute(photos), *connection.execute(files)):
            time = stored_at.get(key, _NEVER)  # the bin's quantities may come from other sources, too
            if time is None or modified_at >= time:
                succeeded[key] = succeeded.get(key, False) or reason is None  # a later count replaces a failure
    return succeeded


def crashed_photos(connection: Connection, bucket: str, keys: Iterable[str]) -> set[tuple[str, str]]:
    """Return keys and ETags of the photos that are recorded as crashed."""
    query = select(Count.key, Count.etag).where(Count.bucket == bucket, Count.reason == Reason.CRASHED)
    return {(key, etag) for key, etag in connection.execute(query.where(Count.key.in_(list(keys))))}


def crashed_metadata(
    connection: Connection, bucket: str, keys: Iterable[str], naming: BinNaming = BY_FILE_NAME
) -> set[tuple[str, str]]:
    """Return keys and ETags of the metadata files that are recorded as crashed."""
    query = select(Expectation.source, Expectation.etag).where(Expectation.bucket == bucket)
    query = query.where(Expectation.reason == MetadataReason.CRASHED, Expectation.bin_id.in_({naming(k) for k in keys}))
    return {(key, etag) for key, etag in connection.execute(query)}


def _is_of_bins(objects: Sequence[ListedObject | ObjectCreated], naming: BinNaming) -> ColumnElement[bool]:
    """Return a condition for the expected quantities of the objects' bins, since the table is indexed by bin.

    Uses a single column, since PostgreSQL takes far longer to plan a query with 500 pairs than to look them up.
    """
    return Expectation.bin_id.in_({naming(item.key) for item in objects})


def _chunks(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[start : start + _CHUNK_SIZE] for start in range(0, len(items), _CHUNK_SIZE)]
