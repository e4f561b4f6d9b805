"""Reading photos from a folder as from a bucket."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from binwatch.file_versions import file_version
from binwatch.objects import ObjectRefused
from binwatch.photo_folder import PhotoFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "a" / "1.jpg").write_bytes(b"photo")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return tmp_path / "photos"


def test_fetching_a_file(folder: Path) -> None:
    os.utime(folder / "a" / "1.jpg", (1_000_000_000.9, 1_000_000_000.9))
    fetched = PhotoFolder(folder).fetch("any", "a/1.jpg", max_bytes=5)
    assert (fetched.data, fetched.etag, fetched.version_id) == (b"photo", "3b9aca00-5", None)
    assert fetched.modified == datetime.fromtimestamp(1_000_000_000, UTC)
    assert file_version(folder / "a" / "1.jpg") == (fetched.etag, fetched.modified)


@pytest.mark.parametrize("key", ["a/2.jpg", "a", "../secret.jpg", "a/../../secret.jpg", "a\0b.jpg", "x" * 300])
def test_keys_without_a_file_in_the_folder_are_missing(folder: Path, key: str) -> None:
    with pytest.raises(ObjectRefused) as refused:
        PhotoFolder(folder).fetch("any", key, max_bytes=5)
    assert refused.value.reason == "missing"


def test_absolute_keys_and_large_files_are_refused(folder: Path) -> None:
    with pytest.raises(ObjectRefused) as refused:
        PhotoFolder(folder).fetch("any", str(folder.parent / "secret.jpg"), max_bytes=50)
    assert refused.value.reason == "missing"
    with pytest.raises(ObjectRefused, match="over 4 bytes") as refused:
        PhotoFolder(folder).fetch("any", "a/1.jpg", max_bytes=4)
    assert refused.value.reason == "too_large"
