"""One bin at a time: metadata and photo, verified, written whole or not at all, tried again politely."""

from __future__ import annotations

import hashlib
import io
import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from binwatch.errors import MetadataError, ObjectsError, PhotoError
from binwatch.image import ImageLimits, load
from binwatch.metadata import ITEMS, expected_quantity
from trainer.disk import write_whole
from trainer.errors import DiskError, PrepareError
from trainer.prepare.place import METADATA, PHOTOS, Damaged, Missing, Place

TRIES = 5
ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif"}
"""Pillow's names of formats → endings of the files that are kept, whatever the photos were called."""
JPEG_QUALITY = 95
"""Of photos that are resized on the way. The model's card names it, so that photos are counted as they were learned."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class BinMetadata:
    """A bin's metadata: what the inventory expects (None if it does not say), and which products."""

    key: str
    data: bytes
    quantity: int | None
    products: frozenset[str]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A bin that gives no labelled photo, and why."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class FetchedPhoto:
    """A photo that is in place."""

    key: str
    sha256: str


class Fetcher:
    """Brings bins from `place` into `folder`. Used by many threads; `wait_s` is the first wait before a second try.

    A thread whose patience is at an end ends that of all others: the run is over, and can be continued.
    """

    def __init__(self, place: Place, folder: Path, size: int, limits: ImageLimits, wait_s: float) -> None:
        self._place = place
        self._photos, self._metadata = folder / PHOTOS, folder / METADATA
        self._size = size
        self._limits = limits
        self._wait_s = wait_s
        self._stopped = threading.Event()

    def bin(self, key: str) -> BinMetadata | LeftOut:
        """Metadata of a bin, from the folder if it is there."""
        own = self._metadata / f"{key}.json"
        try:
            data = own.read_bytes() if own.exists() else self._patiently(lambda: self._place.metadata(key))
        except Missing as error:
            return LeftOut(key, str(error))
        return read_bin(key, data)

    def photo(self, found: BinMetadata, known: str = "") -> FetchedPhoto | LeftOut:
        """Bring the photo of a bin, and its metadata. `known` is the SHA-256 that a file which is there must have."""
        here = self._here(found.key, known)
        try:
            data, suffix = (here, "") if here else self._prepared(self._patiently(lambda: self._place.photo(found.key)))
        except Missing as error:
            return LeftOut(found.key, str(error))
        except PhotoError as error:
            return LeftOut(found.key, f"the photo cannot be decoded: {error}")
        if here is None:
            self._remove_other(found.key, suffix)
            self._write(self._photos / f"{found.key}{suffix}", data)
        if not (self._metadata / f"{found.key}.json").exists():
            self._write(self._metadata / f"{found.key}.json", found.data)
        return FetchedPhoto(found.key, hashlib.sha256(data).hexdigest())

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file whole. What fails for one thread fails for all: none of them need wait any more."""
        try:
            write_whole(path, data)
        except DiskError:
            self._stopped.set()
            raise

    def _remove_other(self, key: str, suffix: str) -> None:
        """A photo that has become one of another format: two files of one key could not be told apart."""
        for other in ENDINGS.values():
            if other != suffix:
                (self._photos / f"{key}{other}").unlink(missing_ok=True)

    def _here(self, key: str, known: str) -> bytes | None:
        """What an earlier run left, if it is whole."""
        paths = (self._photos / f"{key}{suffix}" for suffix in ENDINGS.values())
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            return None
        data = path.read_bytes()
        if known:
            return data if hashlib.sha256(data).hexdigest() == known else None
        try:
            load(data, limits=self._limits)
        except PhotoError:
            return None
        return data

    def _prepared(self, data: bytes) -> tuple[bytes, str]:
        """The photo as it is kept: as it came, or squashed to a square; and the ending of its name, by what it is.

        Raises PhotoError if it cannot be decoded.
        """
        if not self._size:
            return data, ENDINGS[load(data, limits=self._limits).format]
        file = io.BytesIO()
        pixels = load(data, size=self._size, limits=self._limits).pixels
        Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
        return file.getvalue(), ENDINGS["JPEG"]

    def _patiently(self, work: Callable[[], Result]) -> Result:
        """Try again after a longer and longer wait, not in step with the other threads."""
        for attempt in range(TRIES):
            try:
                return work()
            except (ObjectsError, Damaged) as error:
                if attempt == TRIES - 1 or self._stopped.is_set():
                    self._stopped.set()  # the others' patience would only keep the message back
                    raise PrepareError(str(error)) from error
            jitter = 0.5 + random.random()  # noqa: S311, not a secret
            self._stopped.wait(self._wait_s * 2**attempt * jitter)
        raise AssertionError("the last attempt returns or raises")


def read_bin(key: str, data: bytes) -> BinMetadata | LeftOut:
    """Quantity and products of a metadata file."""
    try:
        document = json.loads(data.decode("utf-8-sig"))
        products = document.get(ITEMS)
        names = frozenset(products) if isinstance(products, dict) else frozenset()  # an empty bin may have null
    except (ValueError, RecursionError, AttributeError) as error:
        return LeftOut(key, f"the metadata is not the JSON of a bin ({error})")
    try:
        return BinMetadata(key, data, expected_quantity(data), names)
    except MetadataError as error:
        return BinMetadata(key, data, None, names, str(error))


def kept_quality(size: int) -> int:
    """The quality of the JPEGs that photos are kept as at `size`; 0 if they are kept as they came."""
    return JPEG_QUALITY if size else 0
