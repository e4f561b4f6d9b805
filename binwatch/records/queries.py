"""Queries of the records for several packages. Each function runs in the caller's transaction."""

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
_AT_A_TIME = 500  # SQLite takes 32,766 parameters in a statement
_NEVER = datetime.max.replace(tzinfo=UTC)
_FIRST_WAIT, _LONGEST_WAIT = timedelta(minutes=10), timedelta(days=1)
"""Shortest and longest wait before an object that could not be fetched is tried again. Retries go by time, since a
permission that is granted changes nothing in a listing."""
_Unfetched = tuple[datetime, datetime, str]
"""Times of the first and the last attempt to fetch an object, and the reason of the failure."""


def unrecorded_photos(
    connection: Connection,
    bucket: str,
    listed: Sequence[ListedObject],
    model: str | None = None,
    *,
    refused: bool = False,
) -> list[ListedObject]:
    """The listed photos without a record of their present upload by any model, or by version `model`.

    A photo that was replaced and then restored is included, since its bin has shown another photo meanwhile. A photo
    that could not be fetched is included after a wait: as long as it has been failing, but at least ten minutes and at
    most a day. With `refused`, there is no wait.
    """
    query = select(Count.key, Count.etag, Count.modified_at, Count.reason, Count.recorded_at, Count.tried_at)
    query = query.where(Count.bucket == bucket)
    if model is not None:
        query = query.where(Count.model_version == model)
    recorded = _Uploads(refused=refused)
    for chunk in _chunks(listed):
        recorded.add(connection.execute(query.where(Count.key.in_([photo.key for photo in chunk]))))
    return [photo for photo in listed if photo not in recorded]


def unread_metadata(
    connection: Connection,
    bucket: str,
    listed: Sequence[ListedObject],
    naming: BinNaming = BY_FILE_NAME,
    *,
    refused: bool = False,
) -> list[ListedObject]:
    """The listed metadata files whose present upload has not been read. Failed fetches: as for `unrecorded_photos`."""
    query = select(
        *(Expectation.source, Expectation.etag, Expectation.modified_at),
        *(Expectation.reason, Expectation.recorded_at, Expectation.tried_at),
    ).where(Expectation.bucket == bucket)
    read = _Uploads(refused=refused)
    for chunk in _chunks(listed):
        read.add(connection.execute(query.where(_of_bins(chunk, naming))))
    return [file for file in listed if file not in read]


class _Uploads:
    """The recorded uploads of keys, each with the time when it was last stored."""

    def __init__(self, *, refused: bool) -> None:
        """`refused`: uploads that could not be fetched count as not recorded."""
        self._last: dict[tuple[str, str], datetime] = {}
        self._unfetched: dict[tuple[str, str], _Unfetched] = {}
        self._fetched: set[tuple[str, str]] = set()
        self._refused = refused
        self._now = datetime.now(UTC)

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows of key, ETag, time of the upload, reason, and times of recording and of the last attempt."""
        for key, etag, modified, reason, recorded, tried in rows:
            upload = key, etag
            self._last[upload] = max(modified, self._last.get(upload, modified))
            if reason in NOT_FETCHED:
                first, last, _ = self._unfetched.get(upload, (recorded, recorded, reason))
                self._unfetched[upload] = min(first, recorded), max(last, tried or recorded), reason
            else:
                self._fetched.add(upload)

    def __contains__(self, listed: ListedObject) -> bool:
        upload = listed.key, listed.etag
        last = self._last.get(upload)
        if last is None or last < listed.modified:
            return False
        if upload in self._fetched:
            return True
        first_tried, last_tried, reason = self._unfetched[upload]
        wait = min(max(last_tried - first_tried, _FIRST_WAIT), _LONGEST_WAIT)
        restored = reason == Reason.ARCHIVED and listed.restored
        return not (self._refused or restored or self._now - last_tried >= wait)


def recorded_keys(
    connection: Connection,
    bucket: str,
    objects: Iterable[ObjectCreated],
    model: str | None = None,
    naming: BinNaming = BY_FILE_NAME,
) -> dict[str, bool]:
    """Photos and metadata files with a record of their present upload: key → whether it was counted or read.

    With `model`, only this version's records of photos count.
    """
    done: dict[str, bool] = {}
    for chunk in _chunks(list(objects)):
        stored = {item.key: item.time for item in chunk}
        keys = list(stored)
        photos = select(Count.key, Count.modified_at, Count.reason)
        photos = photos.where(Count.bucket == bucket, Count.key.in_(keys))
        if model is not None:
            photos = photos.where(Count.model_version == model)
        files = select(Expectation.source, Expectation.modified_at, Expectation.reason)
        files = files.where(Expectation.bucket == bucket, _of_bins(chunk, naming))
        for key, modified, reason in (*connection.execute(photos), *connection.execute(files)):
            time = stored.get(key, _NEVER)  # a bin may have quantities from other sources
            if time is None or modified >= time:
                done[key] = done.get(key, False) or reason is None  # a later count replaces a failure
    return done


def crashed_photos(connection: Connection, bucket: str, keys: Iterable[str]) -> set[tuple[str, str]]:
    """Keys and ETags of the photos that are recorded as crashed."""
    query = select(Count.key, Count.etag).where(Count.bucket == bucket, Count.reason == Reason.CRASHED)
    return {(key, etag) for key, etag in connection.execute(query.where(Count.key.in_(list(keys))))}


def crashed_metadata(
    connection: Connection, bucket: str, keys: Iterable[str], naming: BinNaming = BY_FILE_NAME
) -> set[tuple[str, str]]:
    """Like `crashed_photos`, for metadata files."""
    query = select(Expectation.source, Expectation.etag).where(Expectation.bucket == bucket)
    query = query.where(Expectation.reason == MetadataReason.CRASHED, Expectation.bin_id.in_({naming(k) for k in keys}))
    return {(key, etag) for key, etag in connection.execute(query)}


def _of_bins(objects: Sequence[ListedObject | ObjectCreated], naming: BinNaming) -> ColumnElement[bool]:
    """Condition for the expected quantities of the objects' bins, since the table is indexed by bin.

    One column only, since PostgreSQL plans a list of 500 pairs for far longer than the lookup takes.
    """
    return Expectation.bin_id.in_({naming(item.key) for item in objects})


def _chunks(listed: Sequence[Item]) -> list[Sequence[Item]]:
    return [listed[start : start + _AT_A_TIME] for start in range(0, len(listed), _AT_A_TIME)]
