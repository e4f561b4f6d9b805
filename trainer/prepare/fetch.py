"""Fetches the metadata and the photo of a bin, verifies them, and retries after temporary failures."""

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
from trainer.disk import write_whole
from trainer.errors import DiskError, PrepareError
from trainer.prepare.place import METADATA, PHOTOS, Damaged, Missing, Place

TRIES = 5
ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif"}
"""Pillow's names of formats → suffixes of the stored files. They do not depend on the photos' own names."""
JPEG_QUALITY = 95
"""Quality of squashed photos. The model's card contains it, so that workers treat photos in the same way."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class BinMetadata:
    """A bin's metadata: the expected quantity (None if the metadata has none), and the SKUs of its products."""

    key: str
    data: bytes
    quantity: int | None
    products: frozenset[str]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A bin without a usable labelled photo, and the reason."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class FetchedPhoto:
    """A photo that is stored in the folder."""

    key: str
    sha256: str


class Fetcher:
    """Fetches bins from `place` into `folder`. Used by many threads. `wait_s` is the wait before the second attempt.

    When one thread gives up after its last attempt, the others stop retrying: the run ends, and can be continued.
    """

    def __init__(self, place: Place, folder: Path, size: int, limits: ImageLimits, wait_s: float) -> None:
        self._place = place
        self._photos, self._metadata = folder / PHOTOS, folder / METADATA
        self._size = size
        self._limits = limits
        self._wait_s = wait_s
        self._stopped = threading.Event()

    def bin(self, key: str) -> BinMetadata | LeftOut:
        """Metadata of a bin, from the folder if an earlier run has stored it."""
        own = self._metadata / f"{key}.json"
        try:
            data = own.read_bytes() if own.exists() else self._retried(lambda: self._place.metadata(key))
        except Missing as error:
            return LeftOut(key, str(error))
        return read_bin(key, data)

    def photo(self, found: BinMetadata, known: str = "") -> FetchedPhoto | LeftOut:
        """Fetch and store the photo of a bin, and its metadata. An existing file must have the SHA-256 `known`."""
        here = self._stored(found.key, known)
        try:
            data, suffix = (here, "") if here else self._encoded(self._retried(lambda: self._place.photo(found.key)))
        except Missing as error:
            return LeftOut(found.key, str(error))
        except PhotoError as error:
            return LeftOut(found.key, f"the photo cannot be decoded: {error}")
        if here is None:
            for other in ENDINGS.values():  # if the photo's format has changed, two files would have the same key
                if other != suffix:
                    (self._photos / f"{found.key}{other}").unlink(missing_ok=True)
            self._write(self._photos / f"{found.key}{suffix}", data)
        if not (self._metadata / f"{found.key}.json").exists():
            self._write(self._metadata / f"{found.key}.json", found.data)
        return FetchedPhoto(found.key, hashlib.sha256(data).hexdigest())

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file completely. If this fails for one thread it fails for all, so the others stop retrying."""
        try:
            write_whole(path, data)
        except DiskError:
            self._stopped.set()
            raise

    def _stored(self, key: str, known: str) -> bytes | None:
        """The photo that an earlier run stored; None if there is none or if it is damaged."""
        paths = (self._photos / f"{key}{suffix}" for suffix in ENDINGS.values())
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            return None
        data = path.read_bytes()
        if known:
            return data if hashlib.sha256(data).hexdigest() == known else None
        try:
            load_photo(data, limits=self._limits)
        except PhotoError:
            return None
        return data

    def _encoded(self, data: bytes) -> tuple[bytes, str]:
        """The photo as it is stored, unchanged or squashed to a square, and the suffix of its format.

        Raises PhotoError if it cannot be decoded.
        """
        if not self._size:
            return data, ENDINGS[load_photo(data, limits=self._limits).format]
        file = io.BytesIO()
        pixels = load_photo(data, size=self._size, limits=self._limits).pixels
        Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
        return file.getvalue(), ENDINGS["JPEG"]

    def _retried(self, work: Callable[[], Result]) -> Result:
        """Do `work`, with up to TRIES attempts, exponential backoff and jitter."""
        for attempt in range(TRIES):
            try:
                return work()
            except (ObjectsError, Damaged) as error:
                if attempt == TRIES - 1 or self._stopped.is_set():
                    self._stopped.set()  # the retries of other threads would only delay the error
                    raise PrepareError(str(error)) from error
            jitter = 0.5 + random.random()  # noqa: S311, not a secret
            self._stopped.wait(self._wait_s * 2**attempt * jitter)
        raise AssertionError("the last attempt returns or raises")


def read_bin(key: str, data: bytes) -> BinMetadata | LeftOut:
    """Quantity and products of a metadata file."""
    try:
        document = json.loads(data.decode("utf-8-sig"))
        products = document.get(ARTICLES_FIELD)
        names = frozenset(products) if isinstance(products, dict) else frozenset()  # an empty bin may have null
    except (ValueError, RecursionError, AttributeError) as error:
        return LeftOut(key, f"the metadata is not the JSON of a bin ({error})")
    try:
        return BinMetadata(key, data, expected_quantity(data), names)
    except MetadataError as error:
        return BinMetadata(key, data, None, names, str(error))


def kept_quality(size: int) -> int:
    """JPEG quality of photos that are squashed to `size`; 0 if photos are stored unchanged."""
    return JPEG_QUALITY if size else 0
