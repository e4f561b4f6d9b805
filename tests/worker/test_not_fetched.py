"""Objects that cannot be fetched, or only in unusual ways: one record with a reason, and later a count."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from celery.exceptions import Retry
from sqlalchemy import Engine as Database
from sqlalchemy import select, update

from binwatch.events import ObjectCreated
from binwatch.objects import Objects
from binwatch.records.tables import Bin, Count, Expectation
from binwatch.settings import Settings
from testing.brightness import brightness_of, jpeg
from testing.services.faulty_s3 import LAST_MODIFIED, FaultyS3, refuse, respond
from testing.services.s3 import S3
from worker.app import make_app
from worker.counting import Counting
from worker.reconcile import unrecorded_pages
from worker.sagemaker.nightly.results import Results
from worker.sagemaker.nightly.run_paths import RunPaths
from worker.sagemaker.serving.answers import Answer
from worker.tasks import MAX_FETCH_RETRIES, CountPhotos, ReadMetadata, as_json, parse_object

PHOTO = jpeg(brightness_of(4))
METADATA = b'{"EXPECTED_QUANTITY": 4}'
STORED = datetime(2026, 11, 20, 8, tzinfo=UTC)
"""LAST_MODIFIED as a datetime."""
LATER = STORED + timedelta(milliseconds=500)
"""Time of the object's event."""


@pytest.fixture
def counting(settings: Settings) -> Iterator[Counting]:
    counting = Counting(settings)
    yield counting
    counting.close()


def reconcile(counting: Counting, settings: Settings, **options: Any) -> list[ObjectCreated]:
    """Return the objects that a reconcile would send now."""
    pages = unrecorded_pages(counting.objects, counting.database, settings, bucket=settings.bucket, **options)
    return [item for page in pages for item in (*page.photos, *page.metadata)]


def process(counting: Counting, objects: list[ObjectCreated]) -> None:
    """Process objects as the tasks do."""
    assert counting.count([item for item in objects if item.key.endswith("jpg")]) == []
    assert counting.read_metadata([item for item in objects if item.key.endswith("json")]) == []


def reasons(database: Database) -> dict[str, list[str | None]]:
    """Return the reasons of all records by key."""
    result: dict[str, list[str | None]] = {}
    with database.connect() as connection:
        photos = connection.execute(select(Count.key, Count.reason)).all()
        files = connection.execute(select(Expectation.source, Expectation.reason)).all()
    for key, reason in [*photos, *files]:
        result.setdefault(key, []).append(reason)
    return result


def age_records(database: Database, by: timedelta) -> None:
    """Shift the times of all records into the past."""
    with database.begin() as connection:
        for table in (Count, Expectation):
            for row in connection.execute(select(table.id, table.recorded_at, table.tried_at)).all():
                values = {"recorded_at": row.recorded_at - by, "tried_at": row.tried_at and row.tried_at - by}
                connection.execute(update(table).where(table.id == row.id).values(**values))


def test_archived_object_is_recorded_once_and_counted_after_restore(
    counting: Counting, settings: Settings, s3: S3
) -> None:
    for key, data in (("a.jpg", PHOTO), ("a.json", METADATA)):
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=data, StorageClass="GLACIER")
    sent = reconcile(counting, settings)
    assert [item.key for item in sent] == ["a.jpg", "a.json"]
    process(counting, sent)
    for _ in range(3):
        assert reconcile(counting, settings) == []
    assert reasons(counting.database) == {"a.jpg": ["archived"], "a.json": ["archived"]}
    for key in ("a.jpg", "a.json"):
        s3.client.restore_object(Bucket=s3.bucket, Key=key, RestoreRequest={"Days": 1})
    process(
        counting, [ObjectCreated(s3.bucket, "a.jpg", LATER), ObjectCreated(s3.bucket, "a.json", LATER)]
    )  # ObjectRestore:Completed
    assert reasons(counting.database)["a.jpg"] == [None]
    with counting.database.connect() as connection:
        query = select(Count.predicted, Expectation.quantity).select_from(Bin).join(Count).join(Expectation)
        assert connection.execute(query).all() == [(4, 4)]


def test_event_and_listing_leave_the_same_record(counting: Counting, settings: Settings, s3: S3) -> None:
    etag = s3.client.put_object(Bucket=s3.bucket, Key="a.jpg", Body=PHOTO, StorageClass="DEEP_ARCHIVE")["ETag"]
    process(counting, [ObjectCreated(s3.bucket, "a.jpg", datetime.now(UTC), etag.strip('"'))])
    assert reconcile(counting, settings) == []
    assert reasons(counting.database) == {"a.jpg": ["archived"]}


class Proxy:
    """A proxy for one object: `get` answers GET requests; listings, HEAD and bucket requests are answered as by S3."""

    def __init__(self, key: str, data: bytes, get: Callable[[BaseHTTPRequestHandler], None] | None = None) -> None:
        self.key, self.data, self.get = key, data, get
        self.etag = "5d41402abc4b2a76b9719d911017c592"
        self.extra = ""
        self.fetched = 0

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        if "list-type=2" in handler.path:
            entry = f'<ETag>"{self.etag}"</ETag><Size>{len(self.data)}</Size>{self.extra}'
            entry = f"<Key>{self.key}</Key><LastModified>2026-11-20T08:00:00.000Z</LastModified>{entry}"
            body = f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents>{entry}</Contents></ListBucketResult>"
            respond(200, body.encode(), "application/xml")(handler)
        elif handler.command == "HEAD":
            respond(200, b"")(handler)
        else:
            self.fetched += 1
            (self.get or self.send(f'"{self.etag}"'))(handler)

    def send(self, etag: str, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
        """Return a GetObject handler that sends this exact ETag header."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            default_headers = {"Content-Length": str(len(self.data)), "ETag": etag, "Last-Modified": LAST_MODIFIED}
            for name, value in (default_headers | headers).items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(self.data)

        return answer


@pytest.fixture
def use_proxy(counting: Counting, settings: Settings, faulty_s3: FaultyS3) -> Callable[[Proxy], None]:
    """Return a function that puts a proxy between the worker and S3."""

    def put(proxy: Proxy) -> None:
        counting.objects = Objects(settings.model_copy(update={"s3_endpoint_url": faulty_s3.endpoint_url}))
        faulty_s3.answer = proxy

    return put


@pytest.mark.parametrize("form", ['W/"{}"', '"{}-gzip"', '"{};gzip"', '"{}--gzip"', "{}"])
@pytest.mark.parametrize(("key", "data"), [("a.jpg", PHOTO), ("a.json", METADATA)])
def test_etag_changed_by_a_proxy(
    counting: Counting, settings: Settings, use_proxy: Any, form: str, key: str, data: bytes
) -> None:
    proxy = Proxy(key, data)
    proxy.get = proxy.send(form.format(proxy.etag))
    use_proxy(proxy)
    process(counting, reconcile(counting, settings))
    assert reconcile(counting, settings) == []
    assert reasons(counting.database) == {key: [None]}
    assert proxy.fetched == 1


def test_upload_in_the_same_second_keeps_its_etag(counting: Counting, settings: Settings, use_proxy: Any) -> None:
    proxy = Proxy("a.jpg", PHOTO)
    use_proxy(proxy)
    sent = reconcile(counting, settings)
    proxy.etag = "ffffffffffffffffffffffffffffffff"
    process(counting, sent)
    with counting.database.connect() as connection:
        assert connection.execute(select(Count.etag)).scalars().all() == [proxy.etag]


def test_weak_etag_matches_the_listing(counting: Counting, settings: Settings, use_proxy: Any) -> None:
    """An object from an event has no listing to compare with."""
    proxy = Proxy("a.jpg", PHOTO)
    proxy.get = proxy.send(f'W/"{proxy.etag}"')
    use_proxy(proxy)
    process(counting, [ObjectCreated(settings.bucket, "a.jpg", LATER)])
    assert reconcile(counting, settings) == []


@pytest.mark.parametrize("key", ["a.jpg", "a.json"])
def test_forbidden_objects_are_retried_with_growing_intervals(
    counting: Counting, settings: Settings, use_proxy: Any, key: str
) -> None:
    proxy = Proxy(key, PHOTO if key == "a.jpg" else METADATA, refuse(403, "AccessDenied"))
    use_proxy(proxy)
    process(counting, reconcile(counting, settings))
    since = timedelta()
    for _ in range(10):
        wait = min(max(since, timedelta(minutes=10)), timedelta(days=1))
        age_records(counting.database, wait * 0.9)
        assert reconcile(counting, settings) == []
        age_records(counting.database, wait * 0.2)
        process(counting, reconcile(counting, settings))
        since += wait * 1.1
    assert since > timedelta(days=3)
    assert reasons(counting.database) == {key: ["forbidden"]}
    assert proxy.fetched == 11
    assert [item.key for item in reconcile(counting, settings, retry_all=True)] == [key]
    proxy.get = None
    age_records(counting.database, timedelta(days=1))
    process(counting, reconcile(counting, settings))
    assert reasons(counting.database)[key][-1] is None
    age_records(counting.database, timedelta(days=2))
    assert reconcile(counting, settings) == []


def test_new_and_restored_uploads_are_retried_at_once(counting: Counting, settings: Settings, use_proxy: Any) -> None:
    proxy = Proxy("a.jpg", PHOTO, refuse(403, "InvalidObjectState"))
    use_proxy(proxy)
    process(counting, reconcile(counting, settings))
    assert reconcile(counting, settings) == []
    day = "<RestoreExpiryDate>2026-12-01T00:00:00.000Z</RestoreExpiryDate>"
    proxy.extra = f"<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>{day}</RestoreStatus>"
    assert [item.key for item in reconcile(counting, settings)] == ["a.jpg"]
    proxy.extra = ""
    proxy.etag = "another"
    assert [item.etag for item in reconcile(counting, settings)] == ["another"]


@pytest.mark.parametrize(
    ("task", "key", "get"),
    [
        (CountPhotos, "a.jpg", refuse(500, "InternalError")),
        (CountPhotos, "a.jpg", refuse(400, "OddError")),
        (CountPhotos, "a.jpg", respond(200, b"<html>hello</html>")),
        (CountPhotos, "a.jpg", refuse(404, "NoSuchBucket")),
        (ReadMetadata, "a.json", refuse(400, "OddError")),
    ],
    ids=["500", "400", "page", "another bucket", "metadata"],
)
def test_persistent_fetch_failure_is_finally_recorded(
    counting: Counting, settings: Settings, use_proxy: Any, get: Any, task: Any, key: str
) -> None:
    use_proxy(Proxy(key, PHOTO, get))
    (item,) = reconcile(counting, settings)
    with pytest.raises(Retry):
        run(settings, task(counting, None, 0.01), MAX_FETCH_RETRIES - 1, item)
    assert reasons(counting.database) == {}
    run(settings, task(counting, None, 0.01), MAX_FETCH_RETRIES, item)
    assert reasons(counting.database) == {key: ["fetch_failed"]}
    assert reconcile(counting, settings) == []


def test_outage_is_not_blamed_on_objects(counting: Counting, settings: Settings, faulty_s3: FaultyS3) -> None:
    counting.objects = Objects(settings.model_copy(update={"s3_endpoint_url": faulty_s3.endpoint_url}))
    faulty_s3.answer = refuse(403, "ExpiredToken")
    with pytest.raises(Retry):
        run(settings, CountPhotos(counting, None, 0.01), 1000, ObjectCreated(settings.bucket, "a.jpg"))
    assert reasons(counting.database) == {}


def run(settings: Settings, task: Any, retries: int, item: ObjectCreated) -> None:
    """Run the task as a worker does at its n-th retry, without sending the next retry."""
    make_app(settings).register_task(task)
    task.retry = lambda **_: Retry()
    task.push_request(retries=retries)
    try:
        task.run([as_json(item)])
    finally:
        task.pop_request()


def test_task_of_the_previous_release_has_no_etag() -> None:
    item = ObjectCreated("bins", "a.jpg", LATER, "abc")
    assert parse_object(json.loads(json.dumps(as_json(item)))).etag == "abc"
    old = {name: value for name, value in as_json(item).items() if name != "etag"}
    assert (parse_object(old), parse_object(old).etag) == (item, "")


ODD_KEYS = [
    "a//b.jpg",
    "/a.jpg",
    "a\x01.jpg",
    "a\x1b[31m.jpg",
    "a\x7f.jpg",
    "\u202ea.jpg",
    "a.jpg ",
    "?#.jpg",
    "é" * 510 + ".jpg",
]


def test_odd_keys_are_counted_once(counting: Counting, settings: Settings, s3: S3) -> None:
    for key in ODD_KEYS:
        s3.put(key, PHOTO)
    sent = reconcile(counting, settings)
    assert counting.count(sent) == []
    assert reasons(counting.database) == {key: [None] for key in ODD_KEYS}
    assert reconcile(counting, settings) == []


def test_key_that_a_proxy_would_change_is_not_fetched(counting: Counting, settings: Settings, s3: S3) -> None:
    for key in ("../x.jpg", "a/../b.jpg", "./c.jpg", "metadata/./a.json"):
        s3.put(key, PHOTO)
    (page,) = unrecorded_pages(counting.objects, counting.database, settings, bucket=s3.bucket)
    assert (page.photos, page.metadata) == ([], [])
    assert {reason for reason, _ in page.skipped} == {"dot_segments"}
    assert len(page.skipped) == 4
    process(counting, [ObjectCreated(s3.bucket, "../x.jpg")])  # a task of the previous release
    assert reasons(counting.database) == {"../x.jpg": ["missing"]}


@pytest.mark.parametrize(
    ("encoding", "squeeze", "photo", "file"),
    [
        ("gzip", gzip.compress, None, None),
        ("aws-chunked", bytes, None, None),
        ("gzip", bytes, None, None),
        ("br", bytes, "bad_encoding", "bad_encoding"),
        ("gzip", lambda data: gzip.compress(data)[:-9], "bad_encoding", "bad_encoding"),
        ("gzip", lambda data: gzip.compress(data + bytes(30_000_000)), "too_large", "too_large"),
    ],
    ids=["gzip", "aws-chunked", "gzip in name only", "br", "cut off", "bomb"],
)
def test_content_encoding(
    counting: Counting, settings: Settings, s3: S3, encoding: str, squeeze: Any, photo: str | None, file: str | None
) -> None:
    for key, data in (("a.jpg", PHOTO), ("a.json", METADATA)):
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=squeeze(data), ContentEncoding=encoding)
    process(counting, reconcile(counting, settings))
    assert reasons(counting.database) == {"a.jpg": [photo], "a.json": [file]}
    assert reconcile(counting, settings) == []
    if photo is None:
        with counting.database.connect() as connection:
            assert connection.execute(select(Count.predicted, Count.bytes)).all() == [(4, len(PHOTO))]


def test_encoded_photo_is_counted_locally(settings: Settings, s3: S3) -> None:
    """A transform job receives the bytes without the header."""
    s3.client.put_object(Bucket=s3.bucket, Key="a.jpg", Body=gzip.compress(PHOTO), ContentEncoding="gzip")
    objects, folder = Objects(settings), RunPaths(s3.bucket, "nightly/work/", "token")
    answer = Answer(model="m", precision="int8", provider="cpu", reason="not_an_image", detail="x")
    s3.put(folder.output(1, "a.jpg"), answer.to_json())
    (photo,) = [listed for listed in objects.list(s3.bucket) if listed.key == "a.jpg"]
    assert Results(objects, folder, 1, "m").read_count(photo) is None
    s3.put("a.jpg", b"no photo")
    (photo,) = [listed for listed in objects.list(s3.bucket) if listed.key == "a.jpg"]
    result = Results(objects, folder, 1, "m").read_count(photo)
    assert result is not None
    assert result.reason == "not_an_image"
