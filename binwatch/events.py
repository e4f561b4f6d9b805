"""S3 event messages → the created objects. One parser for all dialects.

AWS, moto, versitygw, Ceph and MinIO send `Records`; SNS wraps a message in another; EventBridge has its own format. The
dialects differ in the encoding of keys, in names and in missing fields. Sources: AWS' page on the content and structure
of notifications (AWS, EventBridge), moto 5.2's s3/notifications.py, versitygw's s3event/event.go, Ceph's
doc/radosgw/notifications.rst and src/rgw/rgw_pubsub.cc, MinIO's cmd/event-notification.go.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from posixpath import normpath
from typing import Any
from urllib.parse import unquote_plus

from binwatch.errors import EventError
from binwatch.keys import has_dot_segments
from binwatch.text import many

MAX_BODY_BYTES = 2**20
"""S3's events have at most 64 KiB, SQS messages at most 1 MiB. A larger body is not an event."""
MAX_KEY_BYTES = 1024
"""S3's own limit on a key, in UTF-8."""
MAX_NAME = 80
"""Characters of an event's name; the longest that AWS documents has 43."""
MAX_NAMED = 20
"""Most malformed records that are named. A message may have a quarter of a million of them."""


class Dialect(StrEnum):
    """Sender of the message."""

    S3 = "s3"
    """AWS and moto: keys are form-encoded."""
    VERSITYGW = "versitygw"
    """Keys are already decoded: decoding again would corrupt `+` and `%`. They need not be normalised paths."""
    CEPH = "ceph"
    """Keys are not encoded. In older releases, names of events begin with `s3:`."""
    MINIO = "minio"
    """Keys are form-encoded. Names of events begin with `s3:`."""
    EVENTBRIDGE = "eventbridge"
    """Keys are not encoded."""
    TEST = "test"
    """`s3:TestEvent`, sent when notifications are set up, without an object."""


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """An object that was created, overwritten or restored from an archive at `time`. It may be replaced before it is
    fetched."""

    bucket: str
    key: str
    time: datetime | None = None
    etag: str = field(default="", compare=False)
    """Announced or listed ETag, without quotes; empty if unknown. The fetched object may have another."""


@dataclass(frozen=True, slots=True)
class Message:
    """The contents of one message. Malformed records are named in `malformed`; the others are still processed."""

    dialect: Dialect
    created: list[ObjectCreated] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    """Names of events that announce no new object, such as a deletion."""
    malformed: list[str] = field(default_factory=list)


_ANNOUNCING = ("ObjectCreated:", "ObjectRestore:Completed")
"""Prefixes of the names of events that announce a new object, or one that can be fetched again."""
_ANNOUNCING_EVENTBRIDGE = frozenset({"Object Created", "Object Restore Completed"})
_VERSITYGW = "s3:"
"""Prefix of versitygw's event names, which AWS and moto omit."""


_AWS, _CEPH, _MINIO = "aws:s3", "ceph:s3", "minio:s3"
"""Values of `eventSource`; versitygw has AWS'."""


class _Malformed(ValueError):
    """A record of a message is invalid."""


def parse(body: bytes | str) -> Message:
    """Read one message body. Raises EventError if it is not an S3 event in any dialect."""
    document = _json(body)
    if isinstance(document, dict) and isinstance(document.get("Message"), str) and "TopicArn" in document:
        document = _json(document["Message"])  # SNS without raw delivery
    if isinstance(document, list):  # versitygw up to 1.0 sends the bare list
        document = {"Records": document}
    if not isinstance(document, dict):
        raise EventError(f"a JSON {type(document).__name__} is not an S3 event")
    if document.get("Event") == "s3:TestEvent":
        return Message(Dialect.TEST)
    if document.get("source") == "aws.s3" and "detail" in document:
        return _gather(Dialect.EVENTBRIDGE, [document])
    records = document.get("Records")
    if not isinstance(records, list) or not records:
        raise EventError(f"JSON with the fields {sorted(document)[:8]} is not an S3 event; stop sending it here")
    return _gather(_dialect_of(records), records)


def _json(body: bytes | str) -> Any:
    if len(body) > MAX_BODY_BYTES:
        raise EventError(f"a message of {len(body):,} bytes is not an S3 event (limit {MAX_BODY_BYTES:,})")
    try:
        return json.loads(body.removeprefix("\ufeff") if isinstance(body, str) else body)
    except (ValueError, RecursionError) as error:
        raise EventError(f"not JSON ({error}); starts with {body[:40]!r}") from error


def _dialect_of(records: list[Any]) -> Dialect:
    sources = [record.get("eventSource") for record in records if isinstance(record, dict)]
    for source, dialect in ((_CEPH, Dialect.CEPH), (_MINIO, Dialect.MINIO)):
        if source in sources:
            return dialect
    names = (record.get("eventName") for record in records if isinstance(record, dict))
    is_versitygw = any(isinstance(name, str) and name.startswith(_VERSITYGW) for name in names)
    return Dialect.VERSITYGW if is_versitygw else Dialect.S3


def _gather(dialect: Dialect, records: list[Any]) -> Message:
    message = Message(dialect)
    read = _eventbridge if dialect is Dialect.EVENTBRIDGE else _record
    unnamed = 0
    for position, record in enumerate(records):
        try:
            name, created = read(record)
        except _Malformed as error:
            if len(message.malformed) < MAX_NAMED:
                message.malformed.append(f"record {position}: {error}")
            else:
                unnamed += 1
            continue
        if created is None:
            message.ignored.append(name)
        else:
            message.created.append(created)
    if unnamed:
        message.malformed.append(
            f"and {many(unnamed, 'more record that is not an S3 event', 'more records that are not S3 events')}"
        )
    if not message.created and not message.ignored:
        raise EventError(f"no record is an S3 event: {'; '.join(message.malformed[:3])}")
    return message


def _record(record: object) -> tuple[str, ObjectCreated | None]:
    sent = _name(record, "eventName")
    name = sent.removeprefix(_VERSITYGW)
    source = _text(record, "eventSource")
    if source not in (_AWS, _CEPH, _MINIO):
        raise _Malformed(f"eventSource is {source[:40]!r}, none of {_AWS}, {_CEPH}, {_MINIO}")
    if not name.startswith(_ANNOUNCING):
        return name, None
    data = _object(record, "s3")
    bucket, stored = _text(_object(data, "bucket"), "name"), _object(data, "object")
    key = _text(stored, "key")
    if source == _MINIO or (source == _AWS and sent == name):
        key = _decoded(key)
    elif source == _AWS:
        key = _as_listed(key)
    return name, _created(bucket, key, _time(record, "eventTime"), stored.get("eTag"))


def _eventbridge(record: object) -> tuple[str, ObjectCreated | None]:
    name = _name(record, "detail-type")
    if not name.startswith("Object "):
        # CloudTrail's "AWS API Call via CloudTrail" has the same source, and may announce a new photo.
        raise _Malformed(f"detail-type {name!r} is not one of S3's; have the rule match 'Object Created'")
    if name not in _ANNOUNCING_EVENTBRIDGE:
        return name, None
    detail = _object(record, "detail")
    bucket, stored = _text(_object(detail, "bucket"), "name"), _object(detail, "object")
    return name, _created(bucket, _text(stored, "key"), _time(record, "time"), stored.get("etag"))


def _created(bucket: str, key: str, time: datetime | None, etag: object) -> ObjectCreated:
    for name in (bucket, key):
        _check_storable(name)
    if has_dot_segments(key):
        raise _Malformed(f"key {key[:40]!r} has '.' or '..' as a path segment, which HTTP clients may remove")
    # S3's own ETags are 32 hexadecimal digits and a number of parts. An odd one counts as missing, which is no error.
    if not isinstance(etag, str) or len(etag) > MAX_NAME or not (etag.isascii() and etag.isprintable()):
        etag = ""
    return ObjectCreated(bucket, key, time, bare_etag(etag))


def bare_etag(stated: str) -> str:
    """An ETag without quotes, and without the weak mark `W/`, which compressing proxies add."""
    return stated.removeprefix("W/").strip('"')


def _time(record: object, name: str) -> datetime | None:
    """The event's time in UTC. It is used only if S3 gives no time for the object, so a missing one is no error."""
    try:
        time = datetime.fromisoformat(_text(record, name))
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # in the years 1 and 9999
        return None


def _check_storable(name: str) -> None:
    """Raise _Malformed for a bucket or key that S3 or the database cannot store, such as one with lone surrogates."""
    if not name:
        raise _Malformed("the bucket's name or the key is empty")
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise _Malformed(f"{name[:40]!r} is not valid Unicode") from error
    if "\0" in name or len(encoded) > MAX_KEY_BYTES:
        raise _Malformed(f"{name[:40]!r}… is not an S3 key: NUL inside, or over {MAX_KEY_BYTES} bytes")


def _decoded(key: str) -> str:
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError as error:
        raise _Malformed(f"key {key[:40]!r} does not decode to UTF-8") from error


def _as_listed(key: str) -> str:
    """Normalise versitygw's keys: it announces a key as sent, but lists the file's path, `a/b` for `/a//b`."""
    path = normpath("/" + key).lstrip("/")
    return path + "/" if key.endswith("/") else path


def _object(record: object, name: str) -> dict[str, Any]:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, dict):
        raise _Malformed(f"no {name!r} object")
    return value


def _text(record: object, name: str) -> str:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, str):
        raise _Malformed(f"no {name!r} text")
    return value


def _name(record: object, name: str) -> str:
    """An event's name. It is logged, so it must be short and printable."""
    value = _text(record, name)
    if len(value) > MAX_NAME or not (value.isascii() and value.isprintable()):
        raise _Malformed(f"{name} {value[:40]!r}… is not the name of an event")
    return value
