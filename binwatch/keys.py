"""Classifies objects by their keys (photo, metadata file or other) and determines the bins that they belong to."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import PurePosixPath
from unicodedata import normalize

PHOTO_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".jfi", ".pjpeg", ".pjp"),
        *(".png", ".apng", ".webp", ".bmp", ".dib", ".gif"),
        *(".tif", ".tiff", ".heic", ".heif", ".hif"),
        *(".avif", ".jp2", ".jxl"),
    }
)
"""Suffixes of photos from cameras, phones and scanners. HEIF is decoded if pillow-heif is installed. The formats in the
last line are not decoded: such photos are recorded as failed, so that operators notice them."""
METADATA_SUFFIX = ".json"
_SUFFIXES = PHOTO_SUFFIXES | {METADATA_SUFFIX}
PHOTO_SUFFIXES_TEXT = ".jpg, .jpeg, .png, .webp, .bmp, .gif and others of the same formats"
"""Supported suffixes, for messages."""

_DOT_SEGMENT = re.compile(r"(^|/)\.\.?(/|$)")


class ObjectKind(StrEnum):
    """Kind of an object by its key."""

    PHOTO = "photo"
    METADATA = "metadata"
    OTHER = "other"


class SkipReason(StrEnum):
    """Why an object or event is skipped. Used as a metric label, so the set is closed."""

    NO_ENDING = "no_ending"
    OTHER_ENDING = "other_ending"
    DOT_SEGMENTS = "dot_segments"
    NOT_UTF8 = "not_utf8"
    """Only for local files: the name cannot be a key."""
    OTHER_EVENT = "other_event"
    """An event without a new object, such as a deletion."""


def kind_of(key: str, models_prefix: str = "models/") -> ObjectKind:
    """Return the kind of the object at `key`. Objects under `models_prefix` are neither photos nor metadata.

    Space around the name and the case of its suffix do not matter: "00123.JPG " is a photo.
    """
    return ObjectKind.OTHER if key.startswith(models_prefix) else _kind_by_name(key)


def skip_reason(key: str, *own_prefixes: str) -> SkipReason | None:
    """Return why an object is skipped.

    None for photos and metadata files, and for objects that are not reported: folder markers, and keys under
    `own_prefixes` (models, nightly runs).
    """
    if _kind_by_name(key) is not ObjectKind.OTHER or key.rstrip().endswith("/") or key.startswith(own_prefixes):
        return None
    if has_dot_segments(key):
        return SkipReason.DOT_SEGMENTS
    return SkipReason.OTHER_ENDING if _file_name(key).suffix else SkipReason.NO_ENDING


def has_dot_segments(key: str) -> bool:
    """Return whether a path segment of the key is "." or "..", as in "../a.jpg".

    HTTP clients, proxies and servers resolve such segments, so a request for the key may reach another object or even
    another bucket.
    """
    return _DOT_SEGMENT.search(key) is not None


def bin_of_key(key: str) -> str:
    """Return the id of the bin that a photo or metadata file belongs to: its file name without suffixes.

    "00123.jpg.json" also belongs to bin 00123, since some cameras name the metadata of 00123.jpg in this way.
    """
    name = _file_name(key)
    if name.suffix.lower() not in _SUFFIXES:
        return normalise_bin_id(name.stem)
    while name.suffix.lower() in _SUFFIXES:
        name = PurePosixPath(name.stem)
    return normalise_bin_id(name.name)


def normalise_bin_id(text: str) -> str:
    """Normalise a bin's id to Unicode form NFC, without surrounding space.

    Otherwise, two different ids could look the same: Unicode has two encodings of "é", and macOS uses the other one
    (NFD) for file names.
    """
    return normalize("NFC", text).strip()


def _kind_by_name(key: str) -> ObjectKind:
    if key.rstrip().endswith("/") or has_dot_segments(key):
        return ObjectKind.OTHER
    suffix = _file_name(key).suffix.lower()
    if suffix in PHOTO_SUFFIXES:
        return ObjectKind.PHOTO
    return ObjectKind.METADATA if suffix == METADATA_SUFFIX else ObjectKind.OTHER


def _file_name(key: str) -> PurePosixPath:
    """Return the last segment of a key, without surrounding space."""
    return PurePosixPath(PurePosixPath(key.rstrip()).name.strip())
