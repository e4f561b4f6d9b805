"""Fetches and verifies the metadata and photo of a bin, with retries after temporary failures."""

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
from binwatch.image import ImageLimits, load_photo
from binwatch.metadata import ARTICLES_FIELD, expected_quantity
from trainer.disk import write_atomically
from trainer.errors import DiskError, PrepareError
from trainer.prepare.photo_store import METADATA, PHOTOS, DamagedFileError, MissingFileError, PhotoStore

MAX_ATTEMPTS = 5
"""Maximum number of attempts of a request."""
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif"}
"""Pillow's name of a format → suffix of the stored file, which does not depend on the photo's original name."""
JPEG_QUALITY = 95
"""JPEG quality of squashed photos. The model's card contains it, so that workers treat photos in the same way."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class BinMetadata:
    """A bin's metadata."""

    key: str
    data: bytes
    """The content of the metadata file."""
    quantity: int | None
    """The expected quantity; None if the metadata has none."""
    products: frozenset[str]
    """SKUs of the bin's products."""
    problem: str = ""
    """Why there is no quantity."""


@dataclass(frozen=True, slots=True)
class SkippedBin:
    """A bin that has no usable labelled photo, and the reason."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class FetchedPhoto:
    """A photo that is stored in the output folder."""

    key: str
    sha256: str


class Fetcher:
    """Fetches bins from `store` into `folder`, on many threads. `wait_s` is the wait before the second attempt.

    When one thread gives up after its last attempt, the others stop retrying. The run then ends, and can be continued.
    """

    def __init__(self, store: PhotoStore, folder: Path, size: int, limits: ImageLimits, wait_s: float) -> None:
        self._store = store
        self._photos, self._metadata = folder / PHOTOS, folder / METADATA
        self._size = size
        self._limits = limits
        self._wait_s = wait_s
        self._stopped = threading.Event()

    def fetch_metadata(self, key: str) -> BinMetadata | SkippedBin:
        """Read a bin's metadata from the folder if an earlier run has stored it, else from the store."""
        path = self._metadata / f"{key}.json"
        try:
            data = path.read_bytes() if path.exists() else self._with_retries(lambda: self._store.metadata(key))
        except MissingFileError as error:
            return SkippedBin(key, str(error))
        return parse_metadata(key, data)

    def fetch_photo(self, bin_: BinMetadata, expected_sha256: str = "") -> FetchedPhoto | SkippedBin:
        """Fetch and store a bin's photo, and store its metadata.

        A stored photo is used if it has the expected SHA-256 or, if none is expected, if it can be decoded.
        """
        key = bin_.key
        stored = self._read_stored(key, expected_sha256)
        try:
            data, suffix = (stored, "") if stored else self._encode(self._with_retries(lambda: self._store.photo(key)))
        except MissingFileError as error:
            return SkippedBin(key, str(error))
        except PhotoError as error:
            return SkippedBin(key, f"the photo cannot be decoded: {error}")
        if stored is None:
            for other in SUFFIXES.values():  # if the photo's format has changed, two files would have the same key
                if other != suffix:
                    (self._photos / f"{key}{other}").unlink(missing_ok=True)
            self._write(self._photos / f"{key}{suffix}", data)
        if not (self._metadata / f"{key}.json").exists():
            self._write(self._metadata / f"{key}.json", bin_.data)
        return FetchedPhoto(key, hashlib.sha256(data).hexdigest())

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file atomically. If this fails on one thread, it fails on all, so the others stop retrying."""
        try:
            write_atomically(path, data)
        except DiskError:
            self._stopped.set()
            raise

    def _read_stored(self, key: str, expected_sha256: str) -> bytes | None:
        """Read the photo that an earlier run has stored. Returns None if there is none or if it is damaged."""
        paths = (self._photos / f"{key}{suffix}" for suffix in SUFFIXES.values())
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            return None
        data = path.read_bytes()
        if expected_sha256:
            return data if hashlib.sha256(data).hexdigest() == expected_sha256 else None
        try:
            load_photo(data, limits=self._limits)
        except PhotoError:
            return None
        return data

    def _encode(self, data: bytes) -> tuple[bytes, str]:
        """Return the bytes to store, which are the original ones or a squashed JPEG, and the suffix of their format.

        Raises PhotoError if the photo cannot be decoded.
        """
        if not self._size:
            return data, SUFFIXES[load_photo(data, limits=self._limits).format]
        file = io.BytesIO()
        pixels = load_photo(data, size=self._size, limits=self._limits).pixels
        Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
        return file.getvalue(), SUFFIXES["JPEG"]

    def _with_retries(self, work: Callable[[], Result]) -> Result:
        """Call `work` up to MAX_ATTEMPTS times, with exponential backoff and jitter."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                return work()
            except (ObjectsError, DamagedFileError) as error:
                if attempt == MAX_ATTEMPTS - 1 or self._stopped.is_set():
                    self._stopped.set()  # the retries of other threads would only delay the error
                    raise PrepareError(str(error)) from error
            jitter = 0.5 + random.random()  # noqa: S311, not a secret
            self._stopped.wait(self._wait_s * 2**attempt * jitter)
        raise AssertionError("the last attempt returns or raises")


def parse_metadata(key: str, data: bytes) -> BinMetadata | SkippedBin:
    """Parse the quantity and products of a metadata file."""
    try:
        document = json.loads(data.decode("utf-8-sig"))
        products = document.get(ARTICLES_FIELD)
        names = frozenset(products) if isinstance(products, dict) else frozenset()  # an empty bin may have null
    except (ValueError, RecursionError, AttributeError) as error:
        return SkippedBin(key, f"the metadata is not the JSON of a bin ({error})")
    try:
        return BinMetadata(key, data, expected_quantity(data), names)
    except MetadataError as error:
        return BinMetadata(key, data, None, names, str(error))


def stored_jpeg_quality(size: int) -> int:
    """Return the JPEG quality of photos that are squashed to `size`; 0 if photos are stored unchanged (`size` 0)."""
    return JPEG_QUALITY if size else 0
