"""Photos are served small, re-encoded and by count id; no other objects of the bucket are served."""

from __future__ import annotations

import io
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import timedelta
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from sqlalchemy import Engine

from binwatch.errors import PhotoError, Reason
from binwatch.file_versions import file_version
from binwatch.image import ImageLimits
from binwatch.records.store import NewCount, Store
from binwatch.thumbnails import MAX_SIDE, make_thumbnail
from monitor.api.machine import PLACEHOLDERS
from monitor.photo_limiter import MAX_CONCURRENT, MAX_WAITING
from monitor.photos import LARGE_SIDE, Unavailable
from testing.services.s3 import S3
from tests.monitor.conftest import Recorder, Running, jpeg, running_monitor
from tests.monitor.drifting import DAY, MODEL
from tests.monitor.html import Parsed

IMAGES = "image/avif,image/webp,image/*,*/*;q=0.8"
"""Accept header of a browser for the images of a page."""


class _Shop:
    """A bucket with counted photos and a monitor that shows them."""

    def __init__(self, s3: S3, recorder: Recorder, monitor: Running) -> None:
        self.s3, self.recorder, self.monitor = s3, recorder, monitor

    def add(self, key: str, data: bytes, day: int = 0) -> None:
        at = DAY + timedelta(days=day)
        uploaded = self.s3.client.put_object(Bucket=self.s3.bucket, Key=key, Body=data)
        etag, version = uploaded["ETag"].strip('"'), uploaded.get("VersionId")
        self.recorder.count(key, 1, etag=etag, version_id=version, bucket=self.s3.bucket, at=at)

    def keep_versions(self) -> None:
        versioning = {"Status": "Enabled"}
        self.s3.client.put_bucket_versioning(Bucket=self.s3.bucket, VersioningConfiguration=versioning)

    def shown(self, number: int) -> str:
        """Return the colour of a photo, or the name of the placeholder that a browser gets instead."""
        answer = self.monitor.get(f"/photos/{number}?size=large", Accept=IMAGES)
        if answer.headers["content-type"] == "image/svg+xml":
            assert answer.headers["cache-control"] == "no-store"
            return next(reason for reason, picture in PLACEHOLDERS.items() if picture == answer.content)
        red, green, _ = _opened(answer.content).convert("RGB").getpixel((10, 10))
        return "red" if red > green else "green"

    def latest(self) -> dict[int, tuple[bool, bool]]:
        """Return (replaced, can be shown) of each of the latest photos."""
        photos = self.monitor.get("/api/overview").json()["latest"]
        return {photo["id"]: (photo["replaced"], photo["can_be_shown"]) for photo in photos}


@pytest.fixture
def shop(s3: S3, recorder: Recorder, sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Shop]:
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv("BINWATCH_MAX_PHOTO_BYTES", "50000")
    with running_monitor() as running:
        yield _Shop(s3, recorder, running)


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    return image


def test_photos_of_any_format_are_served_as_small_jpegs(shop: _Shop) -> None:
    png = io.BytesIO()
    Image.new("RGBA", (800, 400), "blue").save(png, "PNG")
    shop.add("odd key/+ü %41.png", png.getvalue())
    answer = shop.monitor.get("/photos/1")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "immutable" in answer.headers["cache-control"]
    assert _opened(answer.content).size == (MAX_SIDE, MAX_SIDE // 2)


def test_a_large_version_of_a_photo_is_served(shop: _Shop) -> None:
    shop.add("a.jpg", jpeg(1500, 1000))
    assert _opened(shop.monitor.get("/photos/1?size=large").content).size == (LARGE_SIDE, LARGE_SIDE * 2 // 3)
    assert shop.monitor.get("/photos/1?size=huge").status_code == 422


def test_a_small_photo_is_not_enlarged(shop: _Shop) -> None:
    shop.add("a.jpg", jpeg())
    first = shop.monitor.get("/photos/1").content
    shop.s3.put("a.jpg", jpeg(colour="green"))
    assert shop.monitor.get("/photos/1").content == first
    assert shop.monitor.get("/photos/1?size=large").status_code == 404


def test_only_photos_are_served(shop: _Shop) -> None:
    shop.add("page.jpg", b"<html><script>alert(1)</script>")
    answer = shop.monitor.get("/photos/1")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert "immutable" not in answer.headers["cache-control"]


@pytest.mark.parametrize(
    ("kind", "value", "turned"), [(3, b"\0\6\0\0", True), (2, b"6\0\0\0", False), (5, b"\0\0\0\x08", False)]
)
def test_an_exif_orientation_of_any_type_is_accepted(kind: int, value: bytes, turned: bool) -> None:
    """Some cameras write it as text, which is ignored, as it is when the photo is counted."""
    tag = struct.pack(">HHI", ExifTags.Base.Orientation, kind, 2 if kind == 2 else 1) + value
    file = io.BytesIO()
    Image.new("RGB", (400, 200), "red").save(file, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1" + tag + bytes(4))
    expected = (MAX_SIDE // 2, MAX_SIDE) if turned else (MAX_SIDE, MAX_SIDE // 2)
    assert _opened(make_thumbnail(file.getvalue(), ImageLimits())).size == expected


def test_a_photo_that_crashed_workers_is_not_decoded(shop: _Shop) -> None:
    etag = shop.s3.put("a.jpg", jpeg())
    shop.recorder.count("a.jpg", None, etag=etag, reason=Reason.CRASHED, bucket=shop.s3.bucket)
    assert shop.shown(1) == Unavailable.UNREADABLE
    assert shop.latest() == {1: (False, False)}


def test_bytes_after_the_image_are_not_served(shop: _Shop) -> None:
    shop.add("tail.jpg", jpeg() + b"<script>alert(1)</script>")
    answer = shop.monitor.get("/photos/1")
    assert answer.status_code == 200
    assert b"script" not in answer.content


def test_a_replaced_photo_is_not_shown_as_the_counted_one(shop: _Shop) -> None:
    shop.add("a.jpg", jpeg(colour="red"))
    shop.s3.put("a.jpg", jpeg(colour="green"))
    answer = shop.monitor.get("/photos/1")
    assert answer.status_code == 404
    assert "replaced" in answer.json()["detail"]


def test_a_browser_gets_a_picture_explaining_a_missing_photo(shop: _Shop) -> None:
    for key in ("a.jpg", "b.jpg"):
        shop.add(key, jpeg(colour="red"))
    shop.add("c.jpg", b"no image")
    shop.s3.put("a.jpg", jpeg(colour="green"))
    shop.s3.client.delete_object(Bucket=shop.s3.bucket, Key="b.jpg")
    assert [shop.shown(number) for number in (1, 2, 3, 4)] == ["replaced", "gone", "unreadable", "gone"]
    assert shop.monitor.get("/photos/1", Accept=IMAGES).status_code == 404


def test_lists_mark_replaced_photos(shop: _Shop) -> None:
    for day, colour in enumerate(("red", "green", "blue")):
        shop.add("a.jpg", jpeg(colour=colour), day)
    shop.add("b.jpg", jpeg())
    shop.recorder.count("b.jpg", 1, etag="", reason=Reason.MISSING, bucket=shop.s3.bucket, at=DAY + timedelta(days=9))
    missing, replaced, shown = (False, False), (True, False), (False, True)
    assert shop.latest() == {1: replaced, 2: replaced, 3: shown, 4: shown, 5: missing}
    photos = shop.monitor.client.get("/api/bin", params={"id": "a", "bucket": shop.s3.bucket}).json()["photos"]
    assert {photo["id"]: (photo["replaced"], photo["can_be_shown"]) for photo in photos} == {
        1: replaced, 2: replaced, 3: shown,
    }  # fmt: skip
    for path in ("/", f"/bin?id=a&bucket={shop.s3.bucket}"):
        sources = [image["src"] for image in Parsed(shop.monitor.page(path)).tags("img")]
        assert sources.count("/static/photo-replaced.svg") == 2
        assert "/photos/1" not in sources


def test_a_restored_photo_is_shown(shop: _Shop) -> None:
    shop.add("a.jpg", jpeg(colour="red"))
    shop.add("a.jpg", jpeg(colour="green"), 1)
    count = NewCount(
        bucket=shop.s3.bucket, key="a.jpg", etag=shop.s3.put("a.jpg", jpeg(colour="red")), model_version=MODEL,
        precision="int8", provider="CPUExecutionProvider", modified_at=DAY + timedelta(days=2), predicted=1,
    )  # fmt: skip
    Store(shop.recorder.engine).add_counts([count])
    assert shop.latest() == {1: (False, True), 2: (True, False)}
    assert (shop.shown(1), shop.shown(2)) == ("red", "replaced")


def test_a_versioned_bucket_shows_replaced_and_deleted_photos(shop: _Shop) -> None:
    shop.keep_versions()
    shop.add("a.jpg", jpeg(colour="red"))
    shop.add("a.jpg", jpeg(colour="green"), 1)
    assert shop.latest() == {1: (True, True), 2: (False, True)}
    assert (shop.shown(1), shop.shown(2)) == ("red", "green")
    marker = shop.s3.client.delete_object(Bucket=shop.s3.bucket, Key="a.jpg")["VersionId"]
    assert (shop.shown(1), shop.shown(2)) == ("red", "green")
    version = shop.s3.client.list_object_versions(Bucket=shop.s3.bucket)["Versions"][-1]["VersionId"]
    for version_id in (marker, version):  # as lifecycle rules do
        shop.s3.client.delete_object(Bucket=shop.s3.bucket, Key="a.jpg", VersionId=version_id)
    assert (shop.shown(1), shop.shown(2)) == ("replaced", "green")


def test_a_deleted_photo_is_not_found(shop: _Shop) -> None:
    shop.add("a.jpg", jpeg())
    shop.s3.client.delete_object(Bucket=shop.s3.bucket, Key="a.jpg")
    assert shop.monitor.get("/photos/1").status_code == 404


def test_a_photo_over_the_limit_is_refused(shop: _Shop) -> None:
    shop.add("big.jpg", jpeg() + bytes(60_000))
    answer = shop.monitor.get("/photos/1")
    assert answer.status_code == 404
    assert "over the limit of 50,000" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/photos/1", 404),
        (f"/photos/{2**63 - 1}", 404),
        (f"/photos/{2**63}", 422),
        ("/photos/0", 422),
        ("/photos/-1", 422),
        ("/photos/a.jpg", 422),
        ("/photos/..%2Fmodels%2Fcurrent.json", 404),
        ("/static/../app.py", 404),
        ("/static/%2e%2e/app.py", 404),
    ],
)
def test_photos_are_addressed_by_count_ids_only(monitor: Running, path: str, status: int) -> None:
    assert monitor.get(path).status_code == status


def test_an_outage_of_the_object_store_is_not_a_missing_photo(known_records: Recorder, monitor: Running) -> None:
    answer = monitor.get("/photos/1")
    assert answer.status_code == 503
    assert "127.0.0.1" not in answer.text
    picture = monitor.get("/photos/1", Accept=IMAGES)
    assert (picture.status_code, picture.content) == (503, PLACEHOLDERS[Unavailable.OUTAGE])
    assert monitor.get("/healthz").status_code == 200


def test_photo_requests_are_limited_while_the_store_hangs(
    known_records: Recorder, sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hangs, ThreadPoolExecutor(100) as people:
        monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", f"http://127.0.0.1:{hangs.getsockname()[1]}")
        monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
        with running_monitor() as running:
            requests = [people.submit(running.get, "/photos/1", Accept=IMAGES) for _ in range(100)]
            answered = as_completed(requests, timeout=30)
            responses = [next(answered).result() for _ in range(100 - MAX_CONCURRENT - MAX_WAITING)]
            assert running.get("/healthz").status_code == 200
            hangs.close()  # waiting requests are answered too
            responses += [response.result() for response in answered]
    assert {(response.status_code, response.content) for response in responses} == {
        (503, PLACEHOLDERS[Unavailable.OUTAGE])
    }


def test_photos_are_served_from_a_folder(
    recorder: Recorder, sqlite_records: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("same.jpg", "changed.jpg"):
        file = tmp_path / "photos" / name
        file.write_bytes(jpeg(200, 100))
        etag, modified = file_version(file)
        recorder.count(name, 1, etag=etag, at=modified)
    file.write_bytes(jpeg(300, 300))
    monkeypatch.setenv("BINWATCH_DATABASE_URL", sqlite_records.url.render_as_string(hide_password=False))
    monkeypatch.setenv("BINWATCH_PHOTO_DIR", str(tmp_path / "photos"))
    with running_monitor() as running:
        assert _opened(running.get("/photos/1").content).size == (MAX_SIDE, MAX_SIDE // 2)
        assert running.get("/photos/2", Accept=IMAGES).content == PLACEHOLDERS[Unavailable.REPLACED]


def test_a_turned_photo_is_shown_upright() -> None:
    """EXIF orientation 6: the camera was turned by 90 degrees; the stored left edge is the top."""
    stored = Image.new("RGB", (400, 200), "white")
    stored.paste("black", (0, 0, 200, 200))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", exif=exif)
    with _opened(make_thumbnail(buffer.getvalue(), ImageLimits())) as small:
        assert small.size == (MAX_SIDE // 2, MAX_SIDE)
        top, bottom = small.convert("L").getpixel((80, 40)), small.convert("L").getpixel((80, 280))
    assert top < 50 < 200 < bottom


def test_a_narrow_photo_keeps_at_least_one_pixel() -> None:
    with _opened(make_thumbnail(jpeg(2000, 2), ImageLimits())) as small:
        assert small.size == (MAX_SIDE, 1)


def test_pixels_are_limited_before_decoding() -> None:
    with pytest.raises(PhotoError) as caught:
        make_thumbnail(jpeg(200, 200), ImageLimits(max_pixels=1000))
    assert caught.value.reason == Reason.TOO_MANY_PIXELS
