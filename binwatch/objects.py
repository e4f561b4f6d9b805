"""The object store: S3 or a server with the same protocol. Threads may share a client."""

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
"""Error codes of S3 and MinIO for invalid keys."""
# AccessDenied concerns one object. A wrong or expired credential, also a 403, concerns all objects: an outage.
_FORBIDDEN_CODES = {
    "AccessDenied",
    "AllAccessDisabled",
    "InvalidRequest",  # the object is encrypted with a key that only its uploader has
    "KMS.DisabledException",
    "KMS.KMSInvalidStateException",  # the key is about to be deleted
    "KMS.NotFoundException",
}

_ANNOUNCED_EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRestore:Completed")
"""Events for a new object, or for one that can be fetched again (binwatch.events)."""
_PRECONDITION_FAILED, _CONFLICT = "PreconditionFailed", "ConditionalRequestConflict"
_KEY_EXISTS_CODES = {_PRECONDITION_FAILED, _CONFLICT}
_CONFLICT_TRIES = 5
_MAX_DELETED_KEYS = 1000  # S3's limit
_BOTO_ERRORS = (ClientError, BotoCoreError, ResponseParserError, KeyError)
"""boto3's errors, and KeyError for a response that lacks a field of every S3 response."""
_CONNECTION_ADVICE = "check the endpoint, the credentials and the network"
_CREDENTIALS_ADVICE = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, log in to AWS, or give the machine a role"


class ObjectRefused(BinwatchError):
    """One object cannot be fetched, and an immediate retry would not help."""

    def __init__(
        self,
        reason: Literal["missing", "too_large", "forbidden", "archived", "bad_encoding"],
        message: str,
        etag: str = "",
        modified: datetime | None = None,
    ) -> None:
        """`etag` and `modified` (by the store's clock) are given if the store has returned them."""
        super().__init__(message)
        self.reason = reason
        self.etag = etag
        self.modified = modified


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object in a listing. `size` is in bytes, `modified` in whole seconds, as in a fetch."""

    key: str
    etag: str
    size: int
    modified: datetime
    restored: bool = False
    """Whether the object is archived and has a restored copy, which can be fetched for a limited time."""


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """The metadata of an object's current upload."""

    etag: str
    version_id: str | None
    modified: datetime
    encoding: str = ""
    """Content-Encoding of the object."""


@dataclass(frozen=True, slots=True)
class FetchedObject:
    """An object's bytes, with any Content-Encoding undone, and the metadata of the upload.

    `etag` has no quotes; `modified` is by the store's clock.
    """

    data: bytes
    etag: str
    version_id: str | None
    modified: datetime


class Objects:
    """Reads and writes objects. Raises ObjectRefused for one bad object and ObjectsError for an outage."""

    def __init__(self, settings: Settings, *, anonymous: bool = False) -> None:
        """`anonymous`: send requests without credentials, as public buckets allow."""
        self._client: Any = make_client(
            "s3",
            endpoint_url=settings.s3_endpoint_url,
            region_name=settings.region,
            config=Config(
                signature_version=UNSIGNED if anonymous else None,
                connect_timeout=settings.s3_timeout_s,
                read_timeout=settings.s3_timeout_s,
                # One connection per fetching thread, so that no thread waits for a connection.
                max_pool_connections=settings.fetch_threads * settings.worker_concurrency,
                retries={"mode": "standard", "max_attempts": 3},
                # Servers other than AWS may not support boto3's newer default checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"} if settings.s3_endpoint_url else {},
            ),
        )

    def fetch(self, bucket: str, key: str, *, max_bytes: int, version_id: str | None = None) -> FetchedObject:
        """Fetch the current object, or an older version that the bucket has kept.

        An object over `max_bytes` is refused before its body is read, or once its decoded bytes exceed the limit.
        """
        version = {"VersionId": version_id} if version_id else {}
        _check_key(bucket, key)
        try:
            response = self._client.get_object(Bucket=bucket, Key=key, **version)
            # Not `with response["Body"]`: that gives urllib3's stream, whose errors botocore does not translate.
            with closing(response["Body"]) as body:
                size, modified = response["ContentLength"], response["LastModified"]
                etag = _etag_or_substitute(_etag_header(response), size, modified)
                if size > max_bytes:
                    raise ObjectRefused(
                        "too_large", f"{key!r} has {size:,} bytes, over the limit of {max_bytes:,}", etag, modified
                    )
                data = _decode_body(body.read(), response.get("ContentEncoding", ""), max_bytes, key, etag, modified)
                return FetchedObject(data, etag, response.get("VersionId"), modified)
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, key) from error

    def head(self, bucket: str, key: str) -> ObjectHead:
        """Fetch the metadata of the current object."""
        _check_key(bucket, key)
        try:
            response = self._client.head_object(Bucket=bucket, Key=key)
            size, modified = response["ContentLength"], response["LastModified"]
            etag = _etag_or_substitute(_etag_header(response), size, modified)
            return ObjectHead(etag, response.get("VersionId"), modified, response.get("ContentEncoding", ""))
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, key) from error

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object."""
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=data)
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, key) from error

    def put_if_absent(self, bucket: str, key: str, data: bytes) -> bool:
        """Write an object unless its key exists; returns whether it did so. Only one of several writers succeeds."""
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
        store does not support conditional writes (an old server, or one whose ETags a proxy has weakened), the ETag is
        compared just before the write, which leaves a short time in which several writers may succeed.
        """
        for _ in range(_CONFLICT_TRIES):
            condition = {"IfNoneMatch": "*"} if before is None else {"IfMatch": f'"{before.etag}"'}
            try:
                self._client.put_object(Bucket=bucket, Key=key, Body=data, **condition)
            except _BOTO_ERRORS as error:
                code = error.response["Error"].get("Code", "") if isinstance(error, ClientError) else ""
                if code == _CONFLICT:  # another write was in progress
                    continue
                if code in _MISSING_CODES:  # the object was deleted
                    return False
                if code not in (_PRECONDITION_FAILED, "NotImplemented"):
                    raise _translate_error(error, bucket, key) from error
                return self._put_checked(bucket, key, data, before, code)
            return True
        return False

    def _put_checked(self, bucket: str, key: str, data: bytes, before: FetchedObject | None, code: str) -> bool:
        """Compare the ETag with that of `before`, then write. The store has refused a conditional write with `code`."""
        try:
            current_etag = self.head(bucket, key).etag
        except ObjectRefused as error:
            if error.reason != "missing":
                raise
            current_etag = None
        if current_etag != (before.etag if before else None):
            return False
        logger.warning("s3://%s/%s: written without a condition: the store refuses it (%s)", bucket, key, code)
        self.put(bucket, key, data)
        return True

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        """Delete objects, a thousand per request. Missing objects are ignored."""
        remaining = iter(keys)
        try:
            while batch := [{"Key": key} for key in islice(remaining, _MAX_DELETED_KEYS)]:
                response = self._client.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
                for refused in response.get("Errors", ()):
                    raise ObjectsError(f"s3://{bucket}/{refused['Key']} cannot be deleted ({refused['Code']})")
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, "") from error

    def check(self, bucket: str) -> None:
        """Raise BinwatchError unless the bucket exists and can be accessed."""
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
        location = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self._client.create_bucket(Bucket=bucket, **location)
        except self._client.exceptions.BucketAlreadyOwnedByYou:
            return False  # another process has just created it
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, "") from error
        return True

    def enable_event_notifications(self, bucket: str, queue_arn: str) -> bool:
        """Have the bucket send its events to an SQS queue; returns whether its configuration was changed.

        Other targets are kept. Nothing changes if the bucket already sends events to this queue, even if only for some
        keys.
        """
        try:
            response = self._client.get_bucket_notification_configuration(Bucket=bucket)
            queues = response.get("QueueConfigurations", [])
            if any(queue["QueueArn"] == queue_arn for queue in queues):
                return False
            configuration = {name: value for name, value in response.items() if name != "ResponseMetadata"}
            added = {"Id": "binwatch", "QueueArn": queue_arn, "Events": list(_ANNOUNCED_EVENTS)}
            self._client.put_bucket_notification_configuration(
                Bucket=bucket, NotificationConfiguration=configuration | {"QueueConfigurations": [*queues, added]}
            )
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, "") from error
        return True

    def list(self, bucket: str, prefix: str = "") -> Iterator[ListedObject]:
        """Yield all objects under `prefix` in key order. They are requested in pages of 1,000."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=prefix, OptionalObjectAttributes=["RestoreStatus"]
        )
        try:
            for page in pages:
                page["IsTruncated"]  # KeyError for a proxy's page, which would otherwise look like an empty bucket
                for entry in page.get("Contents", ()):
                    size, modified = entry["Size"], entry["LastModified"].replace(microsecond=0)
                    restored = "RestoreExpiryDate" in entry.get("RestoreStatus", {})
                    yield ListedObject(
                        entry["Key"], _etag_or_substitute(entry["ETag"], size, modified), size, modified, restored
                    )
        except _BOTO_ERRORS as error:
            raise _translate_error(error, bucket, prefix) from error


def _check_key(bucket: str, key: str) -> None:
    """Raise ObjectRefused for a key that HTTP clients, proxies or servers may rewrite."""
    if has_dot_segments(key):
        raise ObjectRefused(
            "missing",
            f"s3://{bucket}/{key} cannot be requested: its key has '.' or '..' as a path segment; rename the object",
        )


def _decode_body(data: bytes, encoding: str, max_bytes: int, key: str, etag: str, modified: datetime) -> bytes:
    try:
        return decode(data, encoding, max_bytes)
    except DecodedTooLargeError as error:
        message = f"{key!r} has over {max_bytes:,} bytes, the limit, once its Content-Encoding {encoding!r} is undone"
        raise ObjectRefused("too_large", message, etag, modified) from error
    except EncodingError as error:
        message = f"{key!r}: its Content-Encoding {truncate(encoding, 40)!r} {error}"
        raise ObjectRefused("bad_encoding", message, etag, modified) from error


def _etag_header(response: dict[str, Any]) -> str:
    """Return the ETag header; "" if the object store sent none. Raises KeyError if the response is a proxy's page."""
    is_s3 = "x-amz-request-id" in response["ResponseMetadata"]["HTTPHeaders"]
    return str(response.get("ETag", "") if is_s3 else response["ETag"])


def _etag_or_substitute(header: str, size: int, modified: datetime) -> str:
    """Return the ETag, which distinguishes the uploads of a key, or a substitute if the object has none.

    versitygw has no ETag for a file that was copied into its folder. The substitute is made from size and time, which
    are the same in a listing and in a fetch, where both times are in whole seconds.
    """
    return bare_etag(header) or file_etag(size, modified)


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
