"""The object store: S3, or anything that speaks its protocol. One client, shared by threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.parsers import ResponseParserError

from binwatch.errors import BinwatchError, ObjectsError
from binwatch.settings import Settings

_MISSING = {"NoSuchKey", "NoSuchVersion", "404", "NotFound"}
# AccessDenied is about one object; a wrong or expired credential (also a 403) is about all of them: an outage.
_FORBIDDEN = {"AccessDenied", "InvalidObjectState", "AllAccessDisabled"}

_ERRORS = (ClientError, BotoCoreError, ResponseParserError, KeyError)
"""What boto3 raises, and the KeyError where an answer lacks what every answer of S3 has."""
_CHECK = "check the endpoint, the credentials and the network"


class ObjectRefused(BinwatchError):
    """One object cannot be had, and asking again will not help."""

    def __init__(self, why: Literal["missing", "too_large", "forbidden"], message: str, etag: str = "") -> None:
        super().__init__(message)
        self.why = why
        self.etag = etag


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it; `size` in bytes."""

    key: str
    etag: str
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class Fetched:
    """An object's bytes and which upload they are of: `etag` without quotes, `modified` by the store's clock."""

    data: bytes
    etag: str
    version_id: str | None
    modified: datetime


class Objects:
    """Reads and writes objects. Raises ObjectRefused for one bad object and ObjectsError for an outage."""

    def __init__(self, settings: Settings, *, anonymous: bool = False) -> None:
        """`anonymous` asks without credentials, as public buckets allow."""
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint_url,
            region_name=settings.region,
            config=Config(
                signature_version=UNSIGNED if anonymous else None,
                connect_timeout=settings.s3_timeout_s,
                read_timeout=settings.s3_timeout_s,
                # One connection per thread that fetches, or they queue for each other's.
                max_pool_connections=settings.fetch_threads * settings.worker_concurrency,
                retries={"mode": "standard", "max_attempts": 3},
                # Servers that only speak the protocol may not know the newer default checksums.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"} if settings.s3_endpoint_url else {},
            ),
        )

    def fetch(self, bucket: str, key: str, *, max_bytes: int) -> Fetched:
        """The object as it is now. An object over `max_bytes` is refused before its body is read."""
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key)
            # Not `with answer["Body"]`: that hands out urllib3's stream, whose errors botocore does not translate.
            with closing(answer["Body"]) as body:
                size, etag, modified = answer["ContentLength"], answer["ETag"].strip('"'), answer["LastModified"]
                if size > max_bytes:
                    raise ObjectRefused(
                        "too_large", f"{key!r} has {size:,} bytes, over the limit of {max_bytes:,}", etag
                    )
                return Fetched(body.read(), etag, answer.get("VersionId"), modified)
        except _ERRORS as error:
            raise _explained(error, bucket, key) from error

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object."""
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=data)
        except _ERRORS as error:
            raise _explained(error, bucket, key) from error

    def check(self, bucket: str) -> None:
        """Raise BinwatchError unless the bucket is there and answers."""
        try:
            self._client.head_bucket(Bucket=bucket)
        except _ERRORS as error:
            raise _explained(error, bucket, "") from error

    def list(self, bucket: str, prefix: str = "") -> Iterator[Listed]:
        """Every object under `prefix`, in the order of the keys, fetched a page of 1,000 at a time."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        try:
            for page in pages:
                page["IsTruncated"]  # in every listing; a proxy's page would pass for an empty bucket
                for entry in page.get("Contents", ()):
                    yield Listed(entry["Key"], entry["ETag"].strip('"'), entry["Size"], entry["LastModified"])
        except _ERRORS as error:
            raise _explained(error, bucket, prefix) from error


def _explained(error: Exception, bucket: str, key: str) -> BinwatchError:
    code = error.response["Error"].get("Code", "") if isinstance(error, ClientError) else ""
    where = f"s3://{bucket}/{key}"
    if isinstance(error, ParamValidationError):
        return ObjectRefused("missing", f"{where} cannot exist: S3 has no such names for buckets and keys")
    if isinstance(error, KeyError | ResponseParserError):
        return ObjectsError(f"{where}: what answered is not S3 ({error}); {_CHECK}")
    if code in _MISSING:
        return ObjectRefused("missing", f"{where} is not there; it was deleted or never uploaded")
    if code in _FORBIDDEN:
        return ObjectRefused("forbidden", f"{where} may not be read ({code}); check the role's policy")
    if code == "NoSuchBucket":
        return ObjectsError(f"bucket {bucket!r} does not exist; create it or correct BINWATCH_BUCKET")
    return ObjectsError(f"{where}: {error}; {_CHECK}")
