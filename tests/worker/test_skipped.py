"""Objects that are neither photos nor metadata files are counted, named, and listed with the reason."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from binwatch.errors import Reason
from binwatch.events import ObjectCreated
from binwatch.keys import SkipReason
from binwatch.objects import Objects
from binwatch.records.tables import Count
from binwatch.settings import Settings, process_environment
from testing.brightness import brightness_of, jpeg
from testing.services.s3 import S3
from tests.worker.test_count_command import count  # noqa: F401 (a fixture)
from tests.worker.test_intake import Published, Queue, event, queue, run, wait_until  # noqa: F401 (fixtures)
from worker.__main__ import main
from worker.counting import Counting
from worker.intake.routing import route
from worker.metrics import WorkerMetrics
from worker.reconcile import unrecorded_pages
from worker.skipped import SkippedTally

PHOTO = jpeg(brightness_of(3))
AVIF = b"\0\0\0\x1cftypavif" + bytes(100)


def test_tally_names_some_and_counts_all() -> None:
    tally = SkippedTally()
    assert not tally
    tally.add([(SkipReason.OTHER_ENDING, f"{n}.txt") for n in range(9)])
    tally.add([(SkipReason.NO_ENDING, "a\x1b[31m\nb")])
    assert str(tally) == (
        "9 with a suffix of neither photos nor metadata ('0.txt', '1.txt', '2.txt', …);"
        " 1 without a suffix ('a\\x1b[31m\\nb')"
    )


def test_ignored_events_are_skipped() -> None:
    body = event("1.jpg", "read.me", "photo", "models/1/x.txt", "nightly/work/plan-0001", "folder/")
    assert route(body, "bins", "models/", "nightly/").skipped == [
        (SkipReason.OTHER_ENDING, "read.me"),
        (SkipReason.NO_ENDING, "photo"),
    ]
    removed = route(event("1.jpg", name="ObjectRemoved:Delete"), "bins", "models/")
    assert removed.skipped == [(SkipReason.OTHER_EVENT, "ObjectRemoved:Delete")]


def test_many_bad_records_have_a_short_reason() -> None:
    prefix = event("1.jpg").removesuffix("]}")
    routed = route(prefix + ",1" * 240_000 + "]}", "bins", "models/")
    assert [item.key for item in routed.photos] == ["1.jpg"]
    assert "and 239,980 more records that are not S3 events" in str(routed.rejected)
    assert len(str(routed.rejected)) < 2000


def test_intake_counts_and_logs_skipped_objects(queue: Queue, run: object, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    caplog.set_level("INFO")
    metrics, published = WorkerMetrics(), Published()
    queue.send(event("1.jpg", "a.txt", "photo"), event("2.jpg", name="ObjectRemoved:Delete"))
    run(published, metrics=metrics)  # type: ignore[operator]
    wait_until(lambda: queue.left() == 0)
    wait_until(lambda: "skipped: " in caplog.text)
    assert published.keys == ["1.jpg"]
    result = {
        reason: metrics.registry.get_sample_value("binwatch_worker_skipped_objects_total", {"reason": reason})
        for reason in SkipReason
    }
    assert result == {"no_ending": 1, "other_ending": 1, "other_event": 1, "dot_segments": 0, "not_utf8": 0}
    assert "1 without a suffix ('photo')" in caplog.text


ENDINGS = ["a.jfif", "b.jpe", "c.pjpeg", "d.JPEG ", "e.jpg.jpg"]
NOT_DECODED = ["f.HEIC", "g.avif", "h.jxl"]


def test_photos_with_any_suffix_are_recorded(settings: Settings, s3: S3) -> None:
    for key in [*ENDINGS, "i.TIFF"]:
        s3.put(key, PHOTO)
    for key in NOT_DECODED:
        s3.put(key, AVIF)
    for key in ("photo", "notes.txt", "models/x.txt", "nightly/runs/1", "folder/"):
        s3.put(key, PHOTO)
    counting = Counting(settings)
    (page,) = unrecorded_pages(counting.objects, counting.database, settings, bucket=s3.bucket)
    assert counting.count(page.photos) == []
    counting.close()
    with counting.database.connect() as connection:
        rows = connection.execute(select(Count.key, Count.bin_id, Count.predicted, Count.reason)).all()
    assert {row.key: row.predicted if row.reason is None else row.reason for row in rows} == {
        **dict.fromkeys([*ENDINGS, "i.TIFF"], 3),
        **dict.fromkeys(NOT_DECODED, Reason.UNSUPPORTED_FORMAT),
    }
    assert {row.bin_id for row in rows} == set("abcdefghi")
    assert sorted(page.skipped) == [(SkipReason.NO_ENDING, "photo"), (SkipReason.OTHER_ENDING, "notes.txt")]


def test_command_lists_skipped_objects(
    settings: Settings, s3: S3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("a.jpg", "b\x01.txt", "photo", "../x.jpg", "models/x", "sub/c.cr2"):
        s3.put(key, b"x")
    for name, value in process_environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["worker", "skipped"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().out.splitlines() == [
        "../x.jpg: with '.' or '..' as a path segment of the key",
        "b\\x01.txt: with a suffix of neither photos nor metadata",
        "photo: without a suffix",
        "sub/c.cr2: with a suffix of neither photos nor metadata",
    ]


def test_count_command_recognizes_photos_by_content(tmp_path: Path, count: object) -> None:  # noqa: F811
    """Reading the first bytes of a file is cheap."""
    for name in ("photo", "a.part", "b.jfif"):
        (tmp_path / name).write_bytes(PHOTO)
    (tmp_path / "BMW.txt").write_text("BMs are no photos")
    (tmp_path / "a.json").write_text("{}")
    result = count(tmp_path, "--csv")  # type: ignore[operator]
    assert result.returncode == 0
    rows = result.stdout.decode().splitlines()[1:]
    assert [Path(row.split(",")[0]).name for row in rows] == ["a.part", "b.jfif", "photo"]
    counted_by, message = result.stderr.decode().splitlines()
    assert counted_by == "counted by brightness-1"
    assert message == f"skipped: 1 with a suffix of neither photos nor metadata ('{tmp_path / 'BMW.txt'}')"


def test_put_reports_skipped_files(
    settings: Settings, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Latin-1 file name cannot be a key; the other files are still uploaded."""
    folder = tmp_path / "bins"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(PHOTO)
    (folder / "b.jfif").write_bytes(PHOTO)
    (folder / "a.json").write_text("{}")
    (folder / "notes.txt").write_text("x")
    for name, value in process_environment(settings).items():
        monkeypatch.setenv(name, value)

    def put() -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["worker", "put", str(folder)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err.splitlines()[-1]

    status, output, _ = put()
    skipped = "not uploaded: 1 with a suffix of neither photos nor metadata ('bins/notes.txt')"
    assert (status, output) == (0, f"2 photos and 1 metadata file are in s3://{s3.bucket}/; {skipped}\n")
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9.jpg")).write_bytes(PHOTO)
    status, _, error = put()
    assert status == 1
    assert error.startswith("error: 2 photos and 1 metadata file are in")
    assert "1 with a name that is not UTF-8 ('bins/caf\\udce9.jpg')" in error
    keys = [item.key for item in Objects(settings).list(s3.bucket)]
    assert keys == ["bins/a.jpg", "bins/a.json", "bins/b.jfif"]


def test_cloudtrail_event_is_dead_lettered(queue: Queue, run: object) -> None:  # noqa: F811
    body = '{"source": "aws.s3", "detail-type": "AWS API Call via CloudTrail", "detail": {"eventName": "PutObject"}}'
    queue.send(body, event("1.jpg"))
    published = Published()
    run(published)  # type: ignore[operator]
    wait_until(lambda: queue.left() == 0)
    assert published.keys == ["1.jpg"]
    ((result, reason),) = queue.dead()
    assert result == body
    assert "'AWS API Call via CloudTrail' is not one of S3's; have the rule match 'Object Created'" in reason


def test_only_valid_event_etags_are_kept() -> None:
    for etag, expected in (('\\"abc-2\\"', "abc-2"), ("a" * 500, ""), ("\\ud800", ""), ("\\u0000", "")):
        body = event("1.jpg").replace('"key": "1.jpg"', f'"key": "1.jpg", "eTag": "{etag}"')
        (photo,) = route(body, "bins", "models/").photos
        assert (photo, photo.etag) == (ObjectCreated("bins", "1.jpg", photo.time), expected)
