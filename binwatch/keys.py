"""What an object's key says: whether it is a photo, a metadata file or neither, and which bin it is about."""

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
"""What cameras, phones and scanners name photos. HEIF is decoded where pillow-heif is installed. Those of the last line
are not decoded, unless their content is of another format; they are recorded as failed, since a photo that nobody
counts must be seen."""
METADATA_SUFFIX = ".json"
_SUFFIXES = PHOTO_SUFFIXES | {METADATA_SUFFIX}
ENDINGS = ".jpg, .jpeg, .png, .webp, .bmp, .gif and others of the same formats"
"""For messages."""

_DOTS = re.compile(r"(^|/)\.\.?(/|$)")


class ObjectKind(StrEnum):
    """What an object is, by its key alone."""

    PHOTO = "photo"
    METADATA = "metadata"
    OTHER = "other"


class Skipped(StrEnum):
    """Why an object or an event is not looked at. Used as a metric label, so the set is closed."""

    NO_ENDING = "no_ending"
    OTHER_ENDING = "other_ending"
    DOT_SEGMENTS = "dot_segments"
    NOT_UTF8 = "not_utf8"
    """Of files on a disk only: their name can be no key."""
    OTHER_EVENT = "other_event"
    """An event about something else than a new object, such as a deletion."""


def kind_of(key: str, models_prefix: str = "models/") -> ObjectKind:
    """Kind of the object at `key`. Models live in the same bucket and are neither photo nor metadata.

    Space around the name and the case of its ending do not matter: "00123.JPG " is a photo.
    """
    return ObjectKind.OTHER if key.startswith(models_prefix) else _kind_by_name(key)


def skipped(key: str, *own_prefixes: str) -> Skipped | None:
    """Why an object that is neither photo nor metadata is not looked at.

    None for a photo and for metadata, and for what nobody expects to be looked at: the marker of a folder, and what is
    under `own_prefixes` (models, nightly runs).
    """
    if _kind_by_name(key) is not ObjectKind.OTHER or key.rstrip().endswith("/") or key.startswith(own_prefixes):
        return None
    if has_dot_segments(key):
        return Skipped.DOT_SEGMENTS
    return Skipped.OTHER_ENDING if _name(key).suffix else Skipped.NO_ENDING


def has_dot_segments(key: str) -> bool:
    """Whether a part of the key is "." or "..", as in "../a.jpg".

    HTTP clients, proxies and servers drop such parts from a path, so a request for the key may reach another object, or
    another bucket.
    """
    return _DOTS.search(key) is not None


def bin_of(key: str) -> str:
    """Id of the bin that a photo or metadata file is about: the key's name without folders and endings.

    "00123.jpg.json" is about bin 00123, too: so some cameras name what belongs to 00123.jpg.
    """
    name = _name(key)
    if name.suffix.lower() not in _SUFFIXES:
        return bin_id(name.stem)
    while name.suffix.lower() in _SUFFIXES:
        name = PurePosixPath(name.stem)
    return bin_id(name.name)


def bin_id(text: str) -> str:
    """The one way to write a bin's id, whoever writes it.

    Unicode has two ways to write "é", and macOS names files in the other one (NFD): they would look like one bin and be
    two. So would an id with space around it.
    """
    return normalize("NFC", text).strip()


def _kind_by_name(key: str) -> ObjectKind:
    if key.rstrip().endswith("/") or has_dot_segments(key):
        return ObjectKind.OTHER
    suffix = _name(key).suffix.lower()
    if suffix in PHOTO_SUFFIXES:
        return ObjectKind.PHOTO
    return ObjectKind.METADATA if suffix == METADATA_SUFFIX else ObjectKind.OTHER


def _name(key: str) -> PurePosixPath:
    """The key's last part, without space around it."""
    return PurePosixPath(PurePosixPath(key.rstrip()).name.strip())
