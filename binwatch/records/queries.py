"""Reading from the records, for more than one package. Each function runs in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, select

from binwatch.events import Created
from binwatch.keys import bin_of
from binwatch.objects import Listed
from binwatch.records.tables import Count, Expectation

Item = TypeVar("Item")
_AT_A_TIME = 500  # SQLite takes 32,766 parameters in a statement
_NEVER = datetime.max.replace(tzinfo=UTC)


def unrecorded_photos(
    connection: Connection, bucket: str, listed: Sequence[Listed], model: str | None = None
) -> list[Listed]:
    """Those of `listed` that no model, or not this version, has counted or failed to count as they are now.

    A photo that was there before, and is again, is one of them: its bin has shown another meanwhile.
    """
    query = select(Count.key, Count.etag, Count.modified_at).where(Count.bucket == bucket)
    if model is not None:
        query = query.where(Count.model_version == model)
    recorded = _Uploads()
    for chunk in _chunks(listed):
        recorded.add(connection.execute(query.where(Count.key.in_([photo.key for photo in chunk]))))
    return [photo for photo in listed if photo not in recorded]


def unread_metadata(connection: Connection, bucket: str, listed: Sequence[Listed]) -> list[Listed]:
    """Those of `listed` that have not been read as they are now."""
    query = select(Expectation.source, Expectation.etag, Expectation.modified_at).where(Expectation.bucket == bucket)
    read = _Uploads()
    for chunk in _chunks(listed):
        read.add(connection.execute(query.where(_of_bins(chunk))))
    return [file for file in listed if file not in read]


class _Uploads:
    """What was recorded of keys, and when each of their contents was last stored."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], datetime] = {}

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Take in rows of key, ETag and time."""
        for key, etag, modified in rows:
            self._last[key, etag] = max(modified, self._last.get((key, etag), modified))

    def __contains__(self, listed: Listed) -> bool:
        last = self._last.get((listed.key, listed.etag))
        return last is not None and last >= listed.modified


def recorded_keys(
    connection: Connection, bucket: str, objects: Iterable[Created], model: str | None = None
) -> set[str]:
    """Keys of those photos and metadata files that were recorded since `time` (when S3 stored them).

    With `model`, photos only if this version has counted them or failed to.
    """
    done: set[str] = set()
    for chunk in _chunks(list(objects)):
        stored = {item.key: item.time for item in chunk}
        keys = list(stored)
        photos = select(Count.key, Count.modified_at).where(Count.bucket == bucket, Count.key.in_(keys))
        if model is not None:
            photos = photos.where(Count.model_version == model)
        files = select(Expectation.source, Expectation.modified_at).where(Expectation.bucket == bucket, _of_bins(chunk))
        for key, modified in (*connection.execute(photos), *connection.execute(files)):
            time = stored.get(key, _NEVER)  # a bin may have quantities from elsewhere, too
            if time is None or modified >= time:
                done.add(key)
    return done


def _of_bins(objects: Sequence[Listed | Created]) -> ColumnElement[bool]:
    """Expected quantities of the objects' bins, since that is how their table is indexed.

    One column only: PostgreSQL plans a list of 500 pairs for far longer than it then looks them up.
    """
    return Expectation.bin_id.in_({bin_of(item.key) for item in objects})


def _chunks(listed: Sequence[Item]) -> list[Sequence[Item]]:
    return [listed[start : start + _AT_A_TIME] for start in range(0, len(listed), _AT_A_TIME)]
