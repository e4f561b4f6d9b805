"""What a key says."""

from __future__ import annotations

from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binwatch.keys import Kind, Skipped, bin_id, bin_of, kind_of, skipped


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
        ("a.jfif", Kind.PHOTO, "a"),
        ("a.jpe", Kind.PHOTO, "a"),
        ("a.pjpeg", Kind.PHOTO, "a"),
        ("a.HEIC", Kind.PHOTO, "a"),
        ("a.avif", Kind.PHOTO, "a"),
        ("a.tif", Kind.PHOTO, "a"),
        ("a.tiff", Kind.PHOTO, "a"),
        ("a.JPG ", Kind.PHOTO, "a"),
        ("metadata/a.json\n", Kind.METADATA, "a"),
        (" a .jpg", Kind.PHOTO, "a"),
        ("00123.jpg.jpg", Kind.PHOTO, "00123"),
        ("00123.jpg.json", Kind.METADATA, "00123"),
        ("e\u0301.jpg", Kind.PHOTO, "\u00e9"),
        ("a.jpg.", Kind.OTHER, "a.jpg."),
        ("a.jpg/ ", Kind.OTHER, "a"),
        (" .jpg", Kind.OTHER, ".jpg"),
        ("../x.jpg", Kind.OTHER, "x"),
        ("a/./x.jpg", Kind.OTHER, "x"),
        ("..x/y...jpg", Kind.PHOTO, "y.."),
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


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("a.jpg", None),
        ("a.json", None),
        ("folder/", None),
        ("models/v1/notes.txt", None),
        ("nightly/work/x/plan-0001", None),
        ("photo", Skipped.NO_ENDING),
        (".jpg", Skipped.NO_ENDING),
        ("a.jpg.part", Skipped.OTHER_ENDING),
        ("a.cr2", Skipped.OTHER_ENDING),
        ("../x.jpg", Skipped.DOT_SEGMENTS),
        ("a/..", Skipped.DOT_SEGMENTS),
    ],
)
def test_what_is_neither_photo_nor_metadata_has_a_reason(key: str, why: Skipped | None) -> None:
    assert skipped(key, "models/", "nightly/") is why


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_bin_has_one_id_however_it_is_written(text: str) -> None:
    assert bin_id(bin_id(text)) == bin_id(normalize("NFD", text)) == bin_id(f" {text}\n")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_key_is_a_photo_metadata_or_has_a_reason(key: str) -> None:
    looked_at = kind_of(key) is not Kind.OTHER
    assert looked_at == (skipped(key, "models/") is None) or key.rstrip().endswith("/") or key.startswith("models/")
    assert bin_of(key) == bin_id(bin_of(key))
