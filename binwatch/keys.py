"""What an object's key says: whether it is a photo, a metadata file or neither, and which bin it is about."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePosixPath

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
METADATA_SUFFIX = ".json"


class Kind(StrEnum):
    """What an object is, by its key alone."""

    PHOTO = "photo"
    METADATA = "metadata"
    OTHER = "other"


def kind_of(key: str, models_prefix: str = "models/") -> Kind:
    """Kind of the object at `key`. Models live in the same bucket and are neither photo nor metadata."""
    if key.startswith(models_prefix) or key.endswith("/"):
        return Kind.OTHER
    suffix = PurePosixPath(key).suffix.lower()
    if suffix in PHOTO_SUFFIXES:
        return Kind.PHOTO
    return Kind.METADATA if suffix == METADATA_SUFFIX else Kind.OTHER


def bin_of(key: str) -> str:
    """Id of the bin that a photo or metadata file is about: the key's stem, without its folders."""
    return PurePosixPath(key).stem
