"""The object store: S3 or a server with the same protocol. The client is shared by threads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Literal

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError
from botocore.parsers import ResponseParserError

from binwatch.aws import make_client
from binwatch.encodings import DecodedTooLargeError, EncodingError, decode
from binwatch.errors import BinwatchError, ObjectsError
from binwatch.events import bare_etag
from binwatch.file_versions import file_etag
from binwatch.keys import has_dot_segments
from binwatch.settings import Settings, advice
from binwatch.text import truncate

logger = logging.getLogger(__name__)

_MISSING_CODES = {"NoSuchKey", "NoSuchVersion", "404", "NotFound", "KeyTooLongError"}
_INVALID_KEY_CODES = {"InvalidURI", "XMinioInvalidObjectName"}
"""Error codes of S3 and MinIO for impossible keys."""
# AccessDenied concerns one object; a wrong or expired credential (also a 403) concerns all objects: an outage.
_FORBIDDEN_CODES = {
    "AccessDenied",
    "AllAccessDisabled",
    "InvalidRequest",  # encrypted with a key that only its uploader has
    "KMS.DisabledException",
    "KMS.KMSInvalidStateException",  # about to be deleted
    "KMS.NotFoundException",
}

_ANNOUNCED_EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRestore:Completed")
"""Events that announce a new object, or one that can be fetched again (binwatch.events)."""
_PRECONDITION_FAILED, _CONFLICT = "PreconditionFailed", "ConditionalRequestConflict"
_KEY_EXISTS_CODES = {_PRECONDITION_FAILED, _CONFLICT}
_CONFLICT_TRIES = 5
_MAX_DELETED_KEYS = 1000  # S3's limit
_BOTO_ERRORS = (ClientError, BotoCoreError, ResponseParserError, KeyError)
"""boto3's errors, and KeyError for a response without the fields that every response of S3 has."""
_CONNECTION_ADVICE = "check the endpoint, the credentials and the network"
_CREDENTIALS_ADVICE = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, log in to AWS, or give the machine a role"


class ObjectRefused(BinwatchError):
    """One object cannot be fetched, and a retry will not help."""

    def __init__(
        self,
        why: Literal["missing", "too_large", "forbidden", "archived", "bad_encoding"],
        message: str,
        etag: str = "",
        modified: datetime | None = None,
    ) -> None:
        """`etag` and `modified` (by the store's clock) if the store has returned them."""
        super().__init__(message)
        self.reason = why
        self.etag = etag
        self.modified = modified


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object in a listing; `size` in bytes, `modified` in whole seconds, as in a fetch."""

    key: str
    etag: str
    size: int
    modified: datetime
    restored: bool = False
    """Whether the object is archived, and a temporarily restored copy can be fetched."""


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """The present upload of an object, without its bytes."""

    etag: str
    version_id: str | None
    modified: datetime
    encoding: str = ""
    """Its Content-Encoding."""


@dataclass(frozen=True, slots=True)
class FetchedObject:
    """An object's bytes and their upload: `etag` without quotes, `modified` by the store's clock.

    The object's Content-Encoding is removed from the bytes.
    """

    data: bytes
    etag: str
    version_id: str | None
    modified: datetime


class Objects:
    """Reads and writes objects. Raises ObjectRefused for one bad object and ObjectsError for an outage."""

    def __init__(self, settings: Settings, *, anonymous: bool = False) -> None:
        """`anonymous`: send requests without credentials, which public buckets allow."""
        self._client: Any = make_client(
            "s3",
            endpoint_url=settings.s3_endpoint_url,
            region_name=settings.region,
            config=Config(
                signature_version=UNSIGNED if anonymous else None,
                connect_timeout=settings.s3_timeout_s,
                read_timeout=settings.s3_timeout_s,
                # One connection per fetching thread, or threads wait for connections.
                max_pool_connections=settings.fetch_threads * settings.worker_concurrency,
                retries={"mode": "standard", "max_attempts": 3},
                # Other servers than AWS may not know boto3's newer default checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"} if settings.s3_endpoint_url else {},
            ),
        )

    def fetch(self, bucket: str, key: str, *, max_bytes: int, version_id: str | None = None) -> FetchedObject:
        """The object as it is now, or a version that the bucket has kept.

        An object over `max_bytes` is refused before its body is read.
        """
        version = {"VersionId": version_id} if version_id else {}
        _check_key(bucket, key)
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key, **version)
            # Not `with answer["Body"]`: that gives urllib3's stream, whose errors botocore does not translate.
            with closing(answer["Body"]) as body:
                size, modified = answer["ContentLength"], answer["LastModified"]
                etag = _etag_or_substitute(_etag_header(answer), size, modified)
                if size > max_bytes:
                    raise ObjectRefused(
                        "too_large", f"{key!r} has {size:,} bytes, over the limit of {max_bytes:,}", etag, modified
                    )
                data = _decode_body(body.read(), answer.get("ContentEncoding", ""), max_bytes, key, etag, modified)
                return FetchedObject(data, etag, answer.get("VersionId"), modified)
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, key) from error

    def head(self, bucket: str, key: str) -> ObjectHead:
        """The present upload of the object."""
        _check_key(bucket, key)
        try:
            answer = self._client.head_object(Bucket=bucket, Key=key)
            size, modified = answer["ContentLength"], answer["LastModified"]
            etag = _etag_or_substitute(_etag_header(answer), size, modified)
            return ObjectHead(etag, answer.get("VersionId"), modified, answer.get("ContentEncoding", ""))
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, key) from error

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object."""
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=data)
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, key) from error

    def put_if_absent(self, bucket: str, key: str, data: bytes) -> bool:
        """Write an object unless the key exists; returns whether it was written. One of several writers succeeds."""
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except _BOTO_ERRORS as error:
            if isinstance(error, ClientError) and error.response["Error"].get("Code") in _KEY_EXISTS_CODES:
                return False
            raise _translate_error(error, bucket, key) from error
        return True

    def put_if_unchanged(self, bucket: str, key: str, data: bytes, before: FetchedObject | None) -> bool:
        """Write an object unless it has changed since `before` was fetched; returns whether it was written.

        `before` is None if there was no object. Only one of several writers with the same `before` succeeds. If the
        store does not support the condition (an old server, or one whose ETags a proxy has weakened), the object is
        read again just before it is written, which leaves a moment in which several writers may succeed.
        """
        for _ in range(_CONFLICT_TRIES):
            condition = {"IfNoneMatch": "*"} if before is None else {"IfMatch": f'"{before.etag}"'}
            try:
                self._client.put_object(Bucket=bucket, Key=key, Body=data, **condition)
            except _BOTO_ERRORS as error:
                code = error.response["Error"].get("Code", "") if isinstance(error, ClientError) else ""
                if code == _CONFLICT:  # another write was in progress, and has finished by now
                    continue
                if code in _MISSING_CODES:  # it was deleted
                    return False
                if code not in (_PRECONDITION_FAILED, "NotImplemented"):
                    raise _translate_error(error, bucket, key) from error
                return self._put_checked(bucket, key, data, before, code)
            return True
        return False

    def _put_checked(self, bucket: str, key: str, data: bytes, before: FetchedObject | None, code: str) -> bool:
        """Write an object unless it has changed since `before`. The store has refused the condition with `code`."""
        try:
            now = self.head(bucket, key).etag
        except ObjectRefused as error:
            if error.reason != "missing":
                raise
            now = None
        if now != (before.etag if before else None):
            return False
        logger.warning("s3://%s/%s: written without a condition: the store refuses it (%s)", bucket, key, code)
        self.put(bucket, key, data)
        return True

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete objects, a thousand per request. Missing objects are ignored."""
        remaining = iter(keys)
        try:
            while some := [{"Key": key} for key in islice(remaining, _MAX_DELETED_KEYS)]:
                answer = self._client.delete_objects(Bucket=bucket, Delete={"Objects": some, "Quiet": True})
                for refused in answer.get("Errors", ()):
                    raise ObjectsError(f"s3://{bucket}/{refused['Key']} cannot be deleted ({refused['Code']})")
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, "") from error

    def check(self, bucket: str) -> None:
        """Raise BinwatchError unless the bucket exists and answers."""
        try:
            self._client.head_bucket(Bucket=bucket)
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, "") from error

    def make_bucket(self, bucket: str) -> bool:
        """Create the bucket unless it exists; returns whether it was created."""
        try:
            self._client.head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"].get("Code") not in _MISSING_CODES:
                raise _translate_error(error, bucket, "") from error
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, "") from error
        else:
            return False
        region = self._client.meta.region_name
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self._client.create_bucket(Bucket=bucket, **place)
        except self._client.exceptions.BucketAlreadyOwnedByYou:
            return False  # created by another process meanwhile
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, "") from error
        return True

    def send_events(self, bucket: str, queue_arn: str) -> bool:
        """Have the bucket send its events to an SQS queue; returns whether its configuration was changed.

        Other targets are kept. If the bucket already sends events to this queue, even of some keys only, nothing
        changes.
        """
        try:
            found = self._client.get_bucket_notification_configuration(Bucket=bucket)
            queues = found.get("QueueConfigurations", [])
            if any(one["QueueArn"] == queue_arn for one in queues):
                return False
            others = {name: value for name, value in found.items() if name != "ResponseMetadata"}
            ours = {"Id": "binwatch", "QueueArn": queue_arn, "Events": list(_ANNOUNCED_EVENTS)}
            self._client.put_bucket_notification_configuration(
                Bucket=bucket, NotificationConfiguration=others | {"QueueConfigurations": [*queues, ours]}
            )
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, "") from error
        return True

    def list(self, bucket: str, prefix: str = "") -> Iterator[ListedObject]:
        """Every object under `prefix`, in the order of the keys, requested in pages of 1,000."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=prefix, OptionalObjectAttributes=["RestoreStatus"]
        )
        try:
            for page in pages:
                page["IsTruncated"]  # in every listing; without it, a proxy's page would look like an empty bucket
                for entry in page.get("Contents", ()):
                    size, modified = entry["Size"], entry["LastModified"].replace(microsecond=0)
                    restored = "RestoreExpiryDate" in entry.get("RestoreStatus", {})
                    yield ListedObject(
                        entry["Key"], _etag_or_substitute(entry["ETag"], size, modified), size, modified, restored
                    )
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, prefix) from error


def _check_key(bucket: str, key: str) -> None:
    """Raise ObjectRefused for a key that HTTP clients, proxies or servers may change."""
    if has_dot_segments(key):
        raise ObjectRefused(
            "missing",
            f"s3://{bucket}/{key} cannot be requested: its key has '.' or '..' as a path segment; rename the object",
        )


def _decode_body(data: bytes, encoding: str, max_bytes: int, key: str, etag: str, modified: datetime) -> bytes:
    try:
        return decode(data, encoding, max_bytes)
    except DecodedTooLargeError as error:
        why = f"{key!r} has over {max_bytes:,} bytes, the limit, once its Content-Encoding {encoding!r} is undone"
        raise ObjectRefused("too_large", why, etag, modified) from error
    except EncodingError as error:
        why = f"{key!r}: its Content-Encoding {truncate(encoding, 40)!r} {error}"
        raise ObjectRefused("bad_encoding", why, etag, modified) from error


def _etag_header(answer: dict[str, Any]) -> str:
    """The ETag header; "" if the object store has none. Raises KeyError if the response is a proxy's page."""
    speaks_s3 = "x-amz-request-id" in answer["ResponseMetadata"]["HTTPHeaders"]
    return str(answer.get("ETag", "") if speaks_s3 else answer["ETag"])


def _etag_or_substitute(stated: str, size: int, modified: datetime) -> str:
    """The ETag, which distinguishes the uploads of a key.

    versitygw has no ETag for a file that was copied into its folder. Then it is made of size and time, which are the
    same in a listing and a fetch, since S3 has whole seconds in both.
    """
    return bare_etag(stated) or file_etag(size, modified)


def _translate_error(error: Exception, bucket: str, key: str) -> BinwatchError:
    code = error.response["Error"].get("Code", "") if isinstance(error, ClientError) else ""
    where = f"s3://{bucket}/{key}"
    if isinstance(error, ParamValidationError):
        return ObjectRefused("missing", f"{where} cannot exist: S3 allows no such bucket name or key")
    if isinstance(error, KeyError | ResponseParserError):
        return ObjectsError(f"{where}: the answer is not from S3 ({error}); {_CONNECTION_ADVICE}")
    if code in _MISSING_CODES:
        return ObjectRefused("missing", f"{where} does not exist; it was deleted or never uploaded")
    if code in _INVALID_KEY_CODES:
        return ObjectRefused("missing", f"{where} cannot exist: the object store accepts no such key ({code})")
    if code == "InvalidObjectState":
        return ObjectRefused("archived", f"{where} is in an archive (such as Glacier); restore it first")
    if code in _FORBIDDEN_CODES:
        check = "check the role's policy, and the key that it is encrypted with"
        return ObjectRefused("forbidden", f"{where} may not be read ({code}); {check}")
    if code == "InsufficientStorage":  # versitygw's disk is full
        return ObjectsError(f"{where}: the object store has no space left; make room on its disk")
    if code == "NoSuchBucket":
        return ObjectsError(
            f"bucket {bucket!r} does not exist; create it (binwatch worker setup --bucket), or {advice('bucket')}"
        )
    if isinstance(error, NoCredentialsError):
        return ObjectsError(f"{where}: no credentials for the object store; {_CREDENTIALS_ADVICE}")
    if code == "InvalidAccessKeyId":  # for example, keys of another object store sent to AWS
        return ObjectsError(f"{where}: {error}; {_CONNECTION_ADVICE}: {advice('s3_endpoint_url')}")
    return ObjectsError(f"{where}: {error}; {_CONNECTION_ADVICE}")
