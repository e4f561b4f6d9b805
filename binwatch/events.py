"""Parses S3 event messages, in all dialects, into the created objects.

AWS, moto, versitygw, Ceph and MinIO send `Records`; SNS wraps such a message in its own; EventBridge has another
format. The dialects differ in names, in the encoding of keys and in the fields that they omit. Sources: AWS' page on
the content and structure of notifications (AWS, EventBridge), moto 5.2's s3/notifications.py, versitygw's
s3event/event.go, Ceph's doc/radosgw/notifications.rst and src/rgw/rgw_pubsub.cc, MinIO's cmd/event-notification.go.
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
from binwatch.text import count_noun

MAX_BODY_BYTES = 2**20
"""Maximum size of a message. S3's events have at most 64 KiB, and SQS messages at most 1 MiB."""
MAX_KEY_BYTES = 1024
"""Maximum length of a key in UTF-8: S3's own limit."""
MAX_EVENT_NAME_CHARS = 80
"""Maximum length of an event's name. The longest name that AWS documents has 43 characters."""
MAX_LISTED_MALFORMED = 20
"""Maximum number of malformed records that are described. A message may have a quarter of a million of them."""


class Dialect(StrEnum):
    """Dialect of a message, by its sender."""

    S3 = "s3"
    """AWS and moto: keys are form-encoded."""
    VERSITYGW = "versitygw"
    """Keys are not encoded: decoding would corrupt `+` and `%`. They may be paths that are not normalised."""
    CEPH = "ceph"
    """Keys are not encoded. In older releases, event names begin with `s3:`."""
    MINIO = "minio"
    """Keys are form-encoded. Event names begin with `s3:`."""
    EVENTBRIDGE = "eventbridge"
    """Keys are not encoded."""
    TEST = "test"
    """`s3:TestEvent`, which is sent when notifications are set up, and has no object."""


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """An object that was created, overwritten or restored from an archive at `time`.

    It may be replaced before it is fetched.
    """

    bucket: str
    key: str
    time: datetime | None = None
    etag: str = field(default="", compare=False)
    """ETag in the event or listing, without quotes; empty if unknown. The fetched object may have another one."""


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """The contents of one message. Malformed records do not affect the others."""

    dialect: Dialect
    created: list[ObjectCreated] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    """Names of events that announce no new object, such as a deletion."""
    malformed: list[str] = field(default_factory=list)
    """Descriptions of the malformed records."""


_ANNOUNCING_PREFIXES = ("ObjectCreated:", "ObjectRestore:Completed")
"""Prefixes of the names of events for a new object, or for one that can be fetched again."""
_ANNOUNCING_EVENTBRIDGE_NAMES = frozenset({"Object Created", "Object Restore Completed"})
_VERSITYGW_PREFIX = "s3:"
"""Prefix of event names from versitygw, MinIO and older releases of Ceph. AWS and moto omit it."""

_AWS_SOURCE, _CEPH_SOURCE, _MINIO_SOURCE = "aws:s3", "ceph:s3", "minio:s3"
"""Values of `eventSource`. versitygw uses AWS' value."""


class _MalformedRecord(ValueError):
    """A record of a message is invalid."""


def parse_message(body: bytes | str) -> ParsedMessage:
    """Parse a message body. Raises EventError if it is not an S3 event in any dialect."""
    document = _load_json(body)
    if isinstance(document, dict) and isinstance(document.get("Message"), str) and "TopicArn" in document:
        document = _load_json(document["Message"])  # SNS without raw delivery
    if isinstance(document, list):  # versitygw up to 1.0 sends the list without an object around it
        document = {"Records": document}
    if not isinstance(document, dict):
        raise EventError(f"a JSON {type(document).__name__} is not an S3 event")
    if document.get("Event") == "s3:TestEvent":
        return ParsedMessage(Dialect.TEST)
    if document.get("source") == "aws.s3" and "detail" in document:
        return _parse_records(Dialect.EVENTBRIDGE, [document])
    records = document.get("Records")
    if not isinstance(records, list) or not records:
        raise EventError(f"JSON with the fields {sorted(document)[:8]} is not an S3 event; stop sending it here")
    return _parse_records(_detect_dialect(records), records)


def _load_json(body: bytes | str) -> Any:
    if len(body) > MAX_BODY_BYTES:
        raise EventError(f"a message of {len(body):,} bytes is not an S3 event (limit {MAX_BODY_BYTES:,})")
    try:
        return json.loads(body.removeprefix("\ufeff") if isinstance(body, str) else body)
    except (ValueError, RecursionError) as error:
        raise EventError(f"not JSON ({error}); starts with {body[:40]!r}") from error


def _detect_dialect(records: list[Any]) -> Dialect:
    sources = [record.get("eventSource") for record in records if isinstance(record, dict)]
    for source, dialect in ((_CEPH_SOURCE, Dialect.CEPH), (_MINIO_SOURCE, Dialect.MINIO)):
        if source in sources:
            return dialect
    names = (record.get("eventName") for record in records if isinstance(record, dict))
    is_versitygw = any(isinstance(name, str) and name.startswith(_VERSITYGW_PREFIX) for name in names)
    return Dialect.VERSITYGW if is_versitygw else Dialect.S3


def _parse_records(dialect: Dialect, records: list[Any]) -> ParsedMessage:
    message = ParsedMessage(dialect)
    parse = _parse_eventbridge if dialect is Dialect.EVENTBRIDGE else _parse_record
    unlisted = 0
    for position, record in enumerate(records):
        try:
            name, created = parse(record)
        except _MalformedRecord as error:
            if len(message.malformed) < MAX_LISTED_MALFORMED:
                message.malformed.append(f"record {position}: {error}")
            else:
                unlisted += 1
            continue
        if created is None:
            message.ignored.append(name)
        else:
            message.created.append(created)
    if unlisted:
        message.malformed.append(
            f"and {count_noun(unlisted, 'more record that is not an S3 event', 'more records that are not S3 events')}"
        )
    if not message.created and not message.ignored:
        raise EventError(f"no record is an S3 event: {'; '.join(message.malformed[:3])}")
    return message


def _parse_record(record: object) -> tuple[str, ObjectCreated | None]:
    """Parse one of `Records`; returns the event's name, and the object unless the event is ignored."""
    full_name = _get_event_name(record, "eventName")
    name = full_name.removeprefix(_VERSITYGW_PREFIX)
    source = _get_text(record, "eventSource")
    if source not in (_AWS_SOURCE, _CEPH_SOURCE, _MINIO_SOURCE):
        raise _MalformedRecord(
            f"eventSource is {source[:40]!r}, none of {_AWS_SOURCE}, {_CEPH_SOURCE}, {_MINIO_SOURCE}"
        )
    if not name.startswith(_ANNOUNCING_PREFIXES):
        return name, None
    data = _get_object(record, "s3")
    bucket, s3_object = _get_text(_get_object(data, "bucket"), "name"), _get_object(data, "object")
    key = _get_text(s3_object, "key")
    if source == _MINIO_SOURCE or (source == _AWS_SOURCE and full_name == name):
        key = _decode_key(key)
    elif source == _AWS_SOURCE:
        key = _normalise_key(key)
    return name, _make_created(bucket, key, _event_time(record, "eventTime"), s3_object.get("eTag"))


def _parse_eventbridge(record: object) -> tuple[str, ObjectCreated | None]:
    name = _get_event_name(record, "detail-type")
    if not name.startswith("Object "):
        # CloudTrail's "AWS API Call via CloudTrail" has the same source, and may announce a new photo.
        raise _MalformedRecord(f"detail-type {name!r} is not one of S3's; have the rule match 'Object Created'")
    if name not in _ANNOUNCING_EVENTBRIDGE_NAMES:
        return name, None
    detail = _get_object(record, "detail")
    bucket, s3_object = _get_text(_get_object(detail, "bucket"), "name"), _get_object(detail, "object")
    key, time = _get_text(s3_object, "key"), _event_time(record, "time")
    return name, _make_created(bucket, key, time, s3_object.get("etag"))


def _make_created(bucket: str, key: str, time: datetime | None, etag: object) -> ObjectCreated:
    for name in (bucket, key):
        _check_storable(name)
    if has_dot_segments(key):
        raise _MalformedRecord(f"key {key[:40]!r} has '.' or '..' as a path segment, which HTTP clients may remove")
    # S3's own ETags are 32 hexadecimal digits, plus a number of parts for multipart uploads. An invalid
    # one is ignored.
    if not isinstance(etag, str) or len(etag) > MAX_EVENT_NAME_CHARS or not (etag.isascii() and etag.isprintable()):
        etag = ""
    return ObjectCreated(bucket, key, time, bare_etag(etag))


def bare_etag(header: str) -> str:
    """Remove the quotes of an ETag, and the prefix `W/` of weak ETags, which compressing proxies add."""
    return header.removeprefix("W/").strip('"')


def _event_time(record: object, name: str) -> datetime | None:
    """Return the event's time in UTC; None if it is missing or invalid.

    It is used only if S3 gives no time for the object.
    """
    try:
        time = datetime.fromisoformat(_get_text(record, name))
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # OverflowError in the years 1 and 9999
        return None


def _check_storable(name: str) -> None:
    """Raise _MalformedRecord if S3 or the database cannot store a bucket or key, such as one with lone surrogates."""
    if not name:
        raise _MalformedRecord("the bucket's name or the key is empty")
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise _MalformedRecord(f"{name[:40]!r} is not valid Unicode") from error
    if "\0" in name or len(encoded) > MAX_KEY_BYTES:
        raise _MalformedRecord(f"{name[:40]!r}… is not an S3 key: NUL inside, or over {MAX_KEY_BYTES} bytes")


def _decode_key(key: str) -> str:
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError as error:
        raise _MalformedRecord(f"key {key[:40]!r} does not decode to UTF-8") from error


def _normalise_key(key: str) -> str:
    """Normalise a versitygw key: events have the key as sent (`/a//b`), while listings have the file's path (`a/b`)."""
    path = normpath("/" + key).lstrip("/")
    return path + "/" if key.endswith("/") else path


def _get_object(record: object, name: str) -> dict[str, Any]:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, dict):
        raise _MalformedRecord(f"no {name!r} object")
    return value


def _get_text(record: object, name: str) -> str:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, str):
        raise _MalformedRecord(f"no {name!r} text")
    return value


def _get_event_name(record: object, name: str) -> str:
    """Return an event's name. It is logged, so it must be short and printable."""
    value = _get_text(record, name)
    if len(value) > MAX_EVENT_NAME_CHARS or not (value.isascii() and value.isprintable()):
        raise _MalformedRecord(f"{name} {value[:40]!r}… is not the name of an event")
    return value
