"""Classification of object keys and bin ids."""

from __future__ import annotations

from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binwatch.keys import ObjectKind, SkipReason, bin_of_key, kind_of, normalise_bin_id, skip_reason


@pytest.mark.parametrize(
    ("key", "kind", "bin_id"),
    [
        ("bin-images/00123.jpg", ObjectKind.PHOTO, "00123"),
        ("metadata/00123.json", ObjectKind.METADATA, "00123"),
        ("00123.jpg", ObjectKind.PHOTO, "00123"),
        ("a/b/c/00123.JPEG", ObjectKind.PHOTO, "00123"),
        ("a.png", ObjectKind.PHOTO, "a"),
        ("a.webp", ObjectKind.PHOTO, "a"),
        ("a.bmp", ObjectKind.PHOTO, "a"),
        ("a.gif", ObjectKind.PHOTO, "a"),
        ("A.JSON", ObjectKind.METADATA, "A"),
        ("a.b.jpg", ObjectKind.PHOTO, "a.b"),
        ("Käfig 1+%20.jpg", ObjectKind.PHOTO, "Käfig 1+%20"),
        ("箱/📦.jpg", ObjectKind.PHOTO, "📦"),
        ("a//b.jpg", ObjectKind.PHOTO, "b"),
        ("a\\b.jpg", ObjectKind.PHOTO, "a\\b"),
        ("photo.jpg.part", ObjectKind.OTHER, "photo.jpg"),
        ("photo", ObjectKind.OTHER, "photo"),
        ("photo.jpg/", ObjectKind.OTHER, "photo"),
        ("folder/", ObjectKind.OTHER, "folder"),
        ("a.jfif", ObjectKind.PHOTO, "a"),
        ("a.jpe", ObjectKind.PHOTO, "a"),
        ("a.pjpeg", ObjectKind.PHOTO, "a"),
        ("a.HEIC", ObjectKind.PHOTO, "a"),
        ("a.avif", ObjectKind.PHOTO, "a"),
        ("a.tif", ObjectKind.PHOTO, "a"),
        ("a.tiff", ObjectKind.PHOTO, "a"),
        ("a.JPG ", ObjectKind.PHOTO, "a"),
        ("metadata/a.json\n", ObjectKind.METADATA, "a"),
        (" a .jpg", ObjectKind.PHOTO, "a"),
        ("00123.jpg.jpg", ObjectKind.PHOTO, "00123"),
        ("00123.jpg.json", ObjectKind.METADATA, "00123"),
        ("e\u0301.jpg", ObjectKind.PHOTO, "\u00e9"),
        ("a.jpg.", ObjectKind.OTHER, "a.jpg."),
        ("a.jpg/ ", ObjectKind.OTHER, "a"),
        (" .jpg", ObjectKind.OTHER, ".jpg"),
        ("../x.jpg", ObjectKind.OTHER, "x"),
        ("a/./x.jpg", ObjectKind.OTHER, "x"),
        ("..x/y...jpg", ObjectKind.PHOTO, "y.."),
        (".jpg", ObjectKind.OTHER, ".jpg"),
        (".json", ObjectKind.OTHER, ".json"),
        ("models/v1/card.json", ObjectKind.OTHER, "card"),
        ("models/v1/preview.jpg", ObjectKind.OTHER, "preview"),
        ("photos/models/a.jpg", ObjectKind.PHOTO, "a"),
        ("models.jpg", ObjectKind.PHOTO, "models"),
        ("", ObjectKind.OTHER, ""),
    ],
)
def test_keys(key: str, kind: ObjectKind, bin_id: str) -> None:
    assert kind_of(key) is kind
    assert bin_of_key(key) == bin_id


def test_a_configured_model_prefix() -> None:
    assert kind_of("nets/a.json", "nets/") is ObjectKind.OTHER
    assert kind_of("models/a.json", "nets/") is ObjectKind.METADATA


def test_a_photo_and_its_metadata_have_the_same_bin_id() -> None:
    assert bin_of_key("bin-images/00123.jpg") == bin_of_key("metadata/00123.json")


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("a.jpg", None),
        ("a.json", None),
        ("folder/", None),
        ("models/v1/notes.txt", None),
        ("nightly/work/x/plan-0001", None),
        ("photo", SkipReason.NO_ENDING),
        (".jpg", SkipReason.NO_ENDING),
        ("a.jpg.part", SkipReason.OTHER_ENDING),
        ("a.cr2", SkipReason.OTHER_ENDING),
        ("../x.jpg", SkipReason.DOT_SEGMENTS),
        ("a/..", SkipReason.DOT_SEGMENTS),
    ],
)
def test_other_keys_have_a_skip_reason(key: str, why: SkipReason | None) -> None:
    assert skip_reason(key, "models/", "nightly/") is why


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_bin_ids_are_normalised(text: str) -> None:
    assert (
        normalise_bin_id(normalise_bin_id(text))
        == normalise_bin_id(normalize("NFD", text))
        == normalise_bin_id(f" {text}\n")
    )


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_key_is_classified(key: str) -> None:
    looked_at = kind_of(key) is not ObjectKind.OTHER
    assert looked_at == (skip_reason(key, "models/") is None) or key.rstrip().endswith("/") or key.startswith("models/")
    assert bin_of_key(key) == normalise_bin_id(bin_of_key(key))
