"""Manual uploads: `python -m worker put`."""

from __future__ import annotations

from pathlib import Path

import pytest

from binwatch.errors import BinwatchError, ObjectsError
from binwatch.settings import Settings
from testing.services.faulty_s3 import FaultyS3, refuse
from testing.services.s3 import S3
from worker.skipped import SkippedTally
from worker.uploading import find_uploads, put_folders


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Write folders with photos, metadata and other files."""
    for name in ("bin-images/aisle 1/00002.JPG", "bin-images/00001.jpg", "metadata/00001.json", "bin-images/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def _keys(s3: S3) -> dict[str, bytes]:
    listing = s3.client.list_objects_v2(Bucket=s3.bucket).get("Contents", [])
    return {entry["Key"]: s3.client.get_object(Bucket=s3.bucket, Key=entry["Key"])["Body"].read() for entry in listing}


def test_photos_and_metadata_are_uploaded_under_the_folders_names(settings: Settings, s3: S3, shelf: Path) -> None:
    summary = put_folders(settings, [shelf / "bin-images", shelf / "metadata"])
    expected = ("bin-images/00001.jpg", "bin-images/aisle 1/00002.JPG", "metadata/00001.json")
    assert _keys(s3) == {name: name.encode() for name in expected}
    skipped = "1 with a suffix of neither photos nor metadata ('bin-images/notes.txt')"
    assert summary == f"2 photos and 1 metadata file are in s3://{s3.bucket}/; not uploaded: {skipped}"


def test_repeated_upload_sends_only_changes(settings: Settings, s3: S3, shelf: Path) -> None:
    """A repeated metadata file would be treated as new and compared again."""
    put_folders(settings, [shelf / "bin-images"])
    for name in ("bin-images/00001.jpg", "bin-images/aisle 1/00002.JPG"):
        s3.client.put_object(Bucket=s3.bucket, Key=name, Body=name.encode(), Metadata={"by": "someone else"})
    (shelf / "bin-images/00001.jpg").write_bytes(b"another photo")
    put_folders(settings, [shelf / "bin-images"])
    assert _keys(s3)["bin-images/00001.jpg"] == b"another photo"
    unchanged = s3.client.head_object(Bucket=s3.bucket, Key="bin-images/aisle 1/00002.JPG")
    assert unchanged["Metadata"] == {"by": "someone else"}


def test_photo_and_metadata_are_uploaded_together(shelf: Path) -> None:
    result = find_uploads([shelf / "metadata", shelf / "bin-images"], "models/", SkippedTally())
    assert [upload.key for upload in result] == [
        "bin-images/00001.jpg",
        "metadata/00001.json",
        "bin-images/aisle 1/00002.JPG",
    ]


def test_current_folder_is_named(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shelf / "metadata")
    assert [upload.key for upload in find_uploads([Path()], "models/", SkippedTally())] == ["metadata/00001.json"]


def test_missing_folder(settings: Settings, shelf: Path) -> None:
    with pytest.raises(BinwatchError, match="no such folder; name one"):
        put_folders(settings, [shelf / "bin-images", shelf / "nowhere"])


def test_folder_without_photos(settings: Settings, s3: S3, shelf: Path) -> None:
    (shelf / "models").mkdir()
    (shelf / "models" / "current.json").write_text("{}")  # would be read as a promoted model
    with pytest.raises(BinwatchError, match=r"models: no photos \(\.jpg"):
        put_folders(settings, [shelf / "models"])
    assert _keys(s3) == {}


def test_full_disk(settings: Settings, faulty_s3: FaultyS3, shelf: Path) -> None:
    faulty_s3.answer = refuse(507, "InsufficientStorage")
    with pytest.raises(ObjectsError, match=r"s3://.+/bin-images/0000\d\.\w+: the object store has no space left"):
        put_folders(settings.model_copy(update={"s3_endpoint_url": faulty_s3.endpoint_url}), [shelf / "bin-images"])
