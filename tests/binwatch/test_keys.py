"""What a key says."""

from __future__ import annotations

import pytest

from binwatch.keys import Kind, bin_of, kind_of


@pytest.mark.parametrize(
    ("key", "kind", "bin_id"),
    [
        ("bin-images/00123.jpg", Kind.PHOTO, "00123"),
        ("metadata/00123.json", Kind.METADATA, "00123"),
        ("00123.jpg", Kind.PHOTO, "00123"),
        ("a/b/c/00123.JPEG", Kind.PHOTO, "00123"),
        ("a.png", Kind.PHOTO, "a"),
        ("a.webp", Kind.PHOTO, "a"),
        ("a.bmp", Kind.PHOTO, "a"),
        ("a.gif", Kind.PHOTO, "a"),
        ("A.JSON", Kind.METADATA, "A"),
        ("a.b.jpg", Kind.PHOTO, "a.b"),
        ("Käfig 1+%20.jpg", Kind.PHOTO, "Käfig 1+%20"),
        ("箱/📦.jpg", Kind.PHOTO, "📦"),
        ("a//b.jpg", Kind.PHOTO, "b"),
        ("a\\b.jpg", Kind.PHOTO, "a\\b"),
        ("photo.jpg.part", Kind.OTHER, "photo.jpg"),
        ("photo", Kind.OTHER, "photo"),
        ("photo.jpg/", Kind.OTHER, "photo"),
        ("folder/", Kind.OTHER, "folder"),
        ("a.tiff", Kind.OTHER, "a"),
        ("a.heic", Kind.OTHER, "a"),
        (".jpg", Kind.OTHER, ".jpg"),
        (".json", Kind.OTHER, ".json"),
        ("models/v1/card.json", Kind.OTHER, "card"),
        ("models/v1/preview.jpg", Kind.OTHER, "preview"),
        ("photos/models/a.jpg", Kind.PHOTO, "a"),
        ("models.jpg", Kind.PHOTO, "models"),
        ("", Kind.OTHER, ""),
    ],
)
def test_keys(key: str, kind: Kind, bin_id: str) -> None:
    assert kind_of(key) is kind
    assert bin_of(key) == bin_id


def test_another_prefix_of_models() -> None:
    assert kind_of("nets/a.json", "nets/") is Kind.OTHER
    assert kind_of("models/a.json", "nets/") is Kind.METADATA


def test_a_photo_and_its_metadata_are_about_the_same_bin() -> None:
    assert bin_of("bin-images/00123.jpg") == bin_of("metadata/00123.json")
