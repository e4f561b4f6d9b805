"""The object store over real HTTP: moto's server for successful requests, a faulty server for errors."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler

import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from binwatch.errors import ObjectsError
from binwatch.objects import ListedObject, ObjectRefused, Objects
from binwatch.settings import Settings
from testing.services.faulty_s3 import LAST_MODIFIED, FaultyS3, refuse, respond, send
from testing.services.s3 import S3

MIB = 2**20
TIMEOUT_S = 0.3
KEYS = [
    "00001.jpg",
    "a b.jpg",
    "a+b.jpg",
    "100%.jpg",
    "a%20b.jpg",
    "%2B.jpg",
    "bücher/Käfig.jpg",
    "u\u0308.jpg",
    "箱/📦.png",
    "a/b/c/d.jpg",
    "a//b.jpg",
    "a&b=c;d?e#f'\"<>.jpg",
    "~tilde*(1)!.jpg",
    " leading and trailing .jpg",
    "b\\c.jpg",
    "k" * 1000 + ".jpg",
]


@pytest.fixture
def objects(s3: S3) -> Objects:
    return Objects(Settings(s3_endpoint_url=s3.endpoint_url))


@pytest.fixture
def faulty_objects(faulty_s3: FaultyS3) -> Objects:
    return Objects(Settings(s3_endpoint_url=faulty_s3.endpoint_url, s3_timeout_s=TIMEOUT_S))


def _refused(objects: Objects, bucket: str, key: str, max_bytes: int = MIB) -> ObjectRefused:
    with pytest.raises(ObjectRefused) as refused:
        objects.fetch(bucket, key, max_bytes=max_bytes)
    return refused.value


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key[:20])
def test_put_fetch_and_list_any_key(objects: Objects, s3: S3, key: str) -> None:
    data = key.encode()
    objects.put(s3.bucket, key, data)
    fetched = objects.fetch(s3.bucket, key, max_bytes=MIB)
    assert fetched.data == data
    assert fetched.etag == s3.client.head_object(Bucket=s3.bucket, Key=key)["ETag"].strip('"')
    assert abs(datetime.now(UTC) - fetched.modified) < timedelta(minutes=1)
    assert list(objects.list(s3.bucket)) == [ListedObject(key, fetched.etag, len(data), fetched.modified)]


def test_an_empty_object(objects: Objects, s3: S3) -> None:
    s3.put("empty.jpg", b"")
    assert objects.fetch(s3.bucket, "empty.jpg", max_bytes=1).data == b""


def test_fetch_returns_the_version(objects: Objects, s3: S3) -> None:
    s3.put("a.jpg", b"unversioned")
    assert objects.fetch(s3.bucket, "a.jpg", max_bytes=MIB).version_id is None
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.client.put_object(Bucket=s3.bucket, Key="a.jpg", Body=b"new")["VersionId"]
    fetched = objects.fetch(s3.bucket, "a.jpg", max_bytes=MIB)
    assert (fetched.data, fetched.version_id) == (b"new", version)


def test_a_missing_object_is_refused(objects: Objects, s3: S3) -> None:
    refused = _refused(objects, s3.bucket, "no/such+photo.jpg")
    assert refused.reason == "missing"
    assert f"s3://{s3.bucket}/no/such+photo.jpg does not exist" in str(refused)


def test_a_deleted_object_of_a_versioned_bucket_is_refused(objects: Objects, s3: S3) -> None:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put("a.jpg", b"x")
    s3.client.delete_object(Bucket=s3.bucket, Key="a.jpg")
    assert _refused(objects, s3.bucket, "a.jpg").reason == "missing"


def test_the_byte_limit(objects: Objects, s3: S3) -> None:
    etag = s3.put("big.jpg", b"x" * 1001)
    assert len(objects.fetch(s3.bucket, "big.jpg", max_bytes=1001).data) == 1001
    refused = _refused(objects, s3.bucket, "big.jpg", 1000)
    assert (refused.reason, refused.etag) == ("too_large", etag)
    assert refused.modified == objects.head(s3.bucket, "big.jpg").modified
    assert str(refused) == "'big.jpg' has 1,001 bytes, over the limit of 1,000"


def test_a_body_over_the_limit_is_not_read(faulty_objects: Objects, faulty_s3: FaultyS3) -> None:
    """The server announces a terabyte and hangs; only a client that does not wait for the body returns at once."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        send(b"x", 10**12)(handler)
        faulty_s3.hang(handler)

    faulty_s3.answer = answer
    before = time.monotonic()
    assert _refused(faulty_objects, "binwatch", "a.jpg").reason == "too_large"
    assert time.monotonic() - before < TIMEOUT_S


@pytest.mark.parametrize("key", ["a/../secret.jpg", "./secret.jpg", "a/./../secret.jpg", "..", "../secret.jpg"])
def test_a_key_with_dots_is_never_another_key(objects: Objects, s3: S3, key: str) -> None:
    """Such keys are legal in S3, but HTTP clients normalise paths; the request must not fetch another object."""
    s3.put("secret.jpg", b"another photo")
    assert _refused(objects, s3.bucket, key).reason == "missing"


def test_a_missing_bucket_is_refused(objects: Objects, s3: S3) -> None:
    for call in (
        lambda: objects.fetch("binwatch-none", "a.jpg", max_bytes=1),
        lambda: list(objects.list("binwatch-none")),
    ):
        with pytest.raises(
            ObjectsError,
            match=r"bucket 'binwatch-none' does not exist; create it \(.*--bucket\), or BINWATCH_BUCKET is not set",
        ):
            call()
    with pytest.raises(ObjectsError, match="'binwatch-none' does not exist"):
        objects.put("binwatch-none", "a.jpg", b"")


@pytest.mark.parametrize(("bucket", "key"), [("not a bucket/", "a.jpg"), ("", "a.jpg"), ("binwatch", "")])
def test_invalid_s3_names_are_refused(objects: Objects, bucket: str, key: str) -> None:
    """They come from hostile events. If treated as outages, they would be retried for ever."""
    assert _refused(objects, bucket, key).reason == "missing"


def test_a_listing_with_several_pages(objects: Objects, s3: S3) -> None:
    inside = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]  # a thousand uploads over HTTP would take most of the suite's time
    for i in range(1005):
        inside.put_object(s3.bucket, f"bin-images/{i:05}.jpg", b"")
    s3.put("other/x.jpg", b"abc")
    assert [entry.key for entry in objects.list(s3.bucket, "bin-images/")] == [
        f"bin-images/{i:05}.jpg" for i in range(1005)
    ]
    assert sum(1 for _ in objects.list(s3.bucket)) == 1006
    (last,) = objects.list(s3.bucket, "other/")
    assert (last.size, last.modified.utcoffset()) == (3, timedelta(0))
    assert list(objects.list(s3.bucket, "nothing/")) == []


@pytest.mark.parametrize(
    ("status", "code", "why"),
    [
        (403, "AccessDenied", "forbidden"),
        (403, "AllAccessDisabled", "forbidden"),
        (403, "InvalidObjectState", "archived"),
        (400, "InvalidRequest", "forbidden"),
        (400, "KMS.DisabledException", "forbidden"),
        (400, "KMS.KMSInvalidStateException", "forbidden"),
        (400, "KMS.NotFoundException", "forbidden"),
        (400, "KeyTooLongError", "missing"),
        (400, "InvalidURI", "missing"),
        (404, "NoSuchKey", "missing"),
        (404, "NoSuchVersion", "missing"),
    ],
)
def test_permanent_refusals(faulty_objects: Objects, faulty_s3: FaultyS3, status: int, code: str, why: str) -> None:
    faulty_s3.answer = refuse(status, code)
    refused = _refused(faulty_objects, "binwatch", "a.jpg")
    assert refused.reason == why
    assert "s3://binwatch/a.jpg" in str(refused)
    assert faulty_s3.requests == 1


def test_a_bare_404(faulty_objects: Objects, faulty_s3: FaultyS3) -> None:
    faulty_s3.answer = respond(404, b"")
    assert _refused(faulty_objects, "binwatch", "a.jpg").reason == "missing"


OUTAGES: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {
    "InvalidAccessKeyId": refuse(403, "InvalidAccessKeyId"),
    "SignatureDoesNotMatch": refuse(403, "SignatureDoesNotMatch"),
    "ExpiredToken": refuse(400, "ExpiredToken"),
    "SlowDown": refuse(503, "SlowDown"),
    "InternalError": refuse(500, "InternalError"),
    "a bare 403": respond(403, b""),
    "a proxy's 502": respond(502, b"<html>Bad Gateway</html>"),
    "a proxy's page": respond(200, b"<html>Please sign in</html>"),
    "a page that is no XML": respond(200, b"Please sign in & wait", "text/plain"),
    "an empty page": respond(200, b""),
    "a body that ends early": send(b"x" * 10, 1000),
    "no body": send(b"", 1000),
    "no HTTP": lambda handler: (handler.wfile.write(b"220 smtp ready\r\n"), setattr(handler, "close_connection", True)),
    "closed at once": lambda handler: setattr(handler, "close_connection", True),
}


@pytest.mark.parametrize("name", OUTAGES)
def test_outages(faulty_objects: Objects, faulty_s3: FaultyS3, name: str) -> None:
    """Each can be retried, so each must be an ObjectsError that names the object."""
    faulty_s3.answer = OUTAGES[name]
    with pytest.raises(
        ObjectsError, match=r"s3://binwatch/a\.jpg: .+; check the endpoint, the credentials and the network"
    ):
        faulty_objects.fetch("binwatch", "a.jpg", max_bytes=MIB)


@pytest.mark.parametrize(
    "name", [name for name in OUTAGES if "body" not in name and name not in {"an empty page", "SlowDown"}]
)
def test_outages_during_a_listing(faulty_objects: Objects, faulty_s3: FaultyS3, name: str) -> None:
    faulty_s3.answer = OUTAGES[name]
    with pytest.raises(ObjectsError, match=r"s3://binwatch/photos/: "):
        list(faulty_objects.list("binwatch", "photos/"))


@pytest.mark.parametrize("within_the_body", [False, True])
def test_a_server_that_hangs(faulty_objects: Objects, faulty_s3: FaultyS3, within_the_body: bool) -> None:
    """The error is raised after three attempts of TIMEOUT_S each and the waits between them (up to 1 and 2 s)."""
    faulty_s3.answer = faulty_s3.hang_within_the_body if within_the_body else faulty_s3.hang
    before = time.monotonic()
    with pytest.raises(ObjectsError, match=r"(?i)timed? ?out"):
        faulty_objects.fetch("binwatch", "a.jpg", max_bytes=MIB)
    assert time.monotonic() - before < 3 * TIMEOUT_S + 4


def test_an_unreachable_endpoint_is_an_outage() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        objects = Objects(
            Settings(s3_endpoint_url=f"http://127.0.0.1:{unused.getsockname()[1]}", s3_timeout_s=TIMEOUT_S)
        )
        with pytest.raises(ObjectsError, match=r"s3://binwatch/a\.jpg: Could not connect"):
            objects.fetch("binwatch", "a.jpg", max_bytes=MIB)


def test_requests_are_retried(faulty_objects: Objects, faulty_s3: FaultyS3) -> None:
    faulty_s3.answer = refuse(403, "ExpiredToken")
    with pytest.raises(ObjectsError):
        faulty_objects.fetch("binwatch", "a.jpg", max_bytes=MIB)
    faulty_s3.answer = send(b"photo")
    fetched = faulty_objects.fetch("binwatch", "a.jpg", max_bytes=MIB)
    assert (fetched.data, fetched.etag) == (b"photo", "abc")
    assert fetched.modified == datetime(2026, 11, 20, 8, tzinfo=UTC)


def test_an_object_without_an_etag_matches_its_listing(faulty_objects: Objects, faulty_s3: FaultyS3) -> None:
    """versitygw 1.7 returns such objects for files that were copied into its folder directly."""

    def without(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in {"Content-Length": "5", "Last-Modified": LAST_MODIFIED, "x-amz-request-id": "1"}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(b"photo")

    faulty_s3.answer = without
    fetched = faulty_objects.fetch("binwatch", "a.jpg", max_bytes=MIB)
    entry = "<Key>a.jpg</Key><LastModified>2026-11-20T08:00:00.000Z</LastModified><ETag></ETag><Size>5</Size>"
    listing = f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents>{entry}</Contents></ListBucketResult>"
    faulty_s3.answer = respond(200, listing.encode(), "application/xml")
    (listed,) = faulty_objects.list("binwatch")
    faulty_s3.answer = without
    head = faulty_objects.head("binwatch", "a.jpg")
    assert (head.etag, head.modified) == (fetched.etag, fetched.modified)
    assert fetched.etag
    assert listed == ListedObject("a.jpg", fetched.etag, 5, fetched.modified)


def test_a_web_page_with_a_date_is_not_s3(faulty_objects: Objects, faulty_s3: FaultyS3) -> None:
    def page(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in {"Content-Length": "5", "Last-Modified": LAST_MODIFIED}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(b"hello")

    faulty_s3.answer = page
    with pytest.raises(ObjectsError, match="the answer is not from S3"):
        faulty_objects.fetch("binwatch", "a.jpg", max_bytes=MIB)


def test_a_bucket_is_created_once(objects: Objects, s3: S3) -> None:
    assert not objects.make_bucket(s3.bucket)
    assert objects.make_bucket(s3.bucket + "-new")
    assert not objects.make_bucket(s3.bucket + "-new")
    assert list(objects.list(s3.bucket + "-new")) == []


def test_a_bucket_in_another_region(s3: S3) -> None:
    objects = Objects(Settings(s3_endpoint_url=s3.endpoint_url, region="eu-central-1"))
    assert objects.make_bucket(s3.bucket + "-eu")
    result = s3.client.get_bucket_location(Bucket=s3.bucket + "-eu")
    assert result["LocationConstraint"] == "eu-central-1"


def test_a_bucket_that_cannot_be_created(faulty_objects: Objects, faulty_s3: FaultyS3) -> None:
    faulty_s3.answer = refuse(403, "SignatureDoesNotMatch")
    with pytest.raises(ObjectsError, match="s3://binwatch/"):
        faulty_objects.make_bucket("binwatch")


def test_no_credentials(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path_factory.mktemp("home") / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path_factory.mktemp("home") / "none"))
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    objects = Objects(Settings(s3_endpoint_url=s3.endpoint_url))
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    with pytest.raises(ObjectsError, match="credentials"):
        objects.fetch(s3.bucket, "a.jpg", max_bytes=1)


def test_only_one_concurrent_put_new_succeeds(objects: Objects, s3: S3) -> None:
    assert objects.put_if_absent(s3.bucket, "claim", b"first")
    assert not objects.put_if_absent(s3.bucket, "claim", b"second")
    assert objects.fetch(s3.bucket, "claim", max_bytes=MIB).data == b"first"


def test_put_new_reports_errors(objects: Objects) -> None:
    with pytest.raises(ObjectsError, match="bucket 'no-such-bucket' does not exist"):
        objects.put_if_absent("no-such-bucket", "claim", b"")


def test_head_and_fetch_describe_the_same_upload(objects: Objects, s3: S3) -> None:
    s3.put("a.jpg", b"bytes")
    head, fetched = objects.head(s3.bucket, "a.jpg"), objects.fetch(s3.bucket, "a.jpg", max_bytes=MIB)
    assert (head.etag, head.version_id, head.modified) == (fetched.etag, fetched.version_id, fetched.modified)
    with pytest.raises(ObjectRefused) as refused:
        objects.head(s3.bucket, "b.jpg")
    assert refused.value.reason == "missing"


def test_delete_many_and_missing_objects(objects: Objects, s3: S3) -> None:
    keys = [f"{number}.jpg" for number in range(1002)]
    for key in (keys[0], keys[-1], "kept.jpg"):
        s3.put(key, b"")
    objects.delete(s3.bucket, iter(keys))
    assert [listed.key for listed in objects.list(s3.bucket)] == ["kept.jpg"]
    objects.delete(s3.bucket, [])
