"""Counts the photos of a folder without the database.

Loading the database's libraries takes as long as counting a few batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

from binwatch.bundle import Bundle
from binwatch.errors import PhotoError
from binwatch.image import Photo
from binwatch.photo_stats import PhotoStats, photo_stats
from binwatch.settings import Settings
from worker.check.folder import PhotoFile
from worker.engine import Engine
from worker.photo_inputs import file_source
from worker.pipeline import Prediction, load_ahead, predict

_DECODED_BATCHES = 4
"""Number of batches that are decoded ahead of the model."""
_PREDICTED_PHOTOS = 128
"""Number of photos passed to the model before their results are read. On most machines, this is enough to keep it busy
until the database has loaded."""


@dataclass(frozen=True, slots=True)
class LoadedPhotoFile:
    """A photo's file, read and decoded, or the error that prevented it."""

    file: PhotoFile
    photo: Photo | None = None
    stats: PhotoStats | None = None
    size: int | None = None
    error: PhotoError | None = None


PhotoResult = tuple[LoadedPhotoFile, Prediction | PhotoError | None]


class RunningCount(NamedTuple):
    """A model that counts in the background, and its results in the order of the photos."""

    engine: Engine
    results: Iterator[PhotoResult]


def start_counting(settings: Settings, bundle: Bundle, photos: Sequence[PhotoFile]) -> RunningCount:
    """Load the model and start counting; return once the first batch is done."""
    engine = Engine.from_settings(bundle, settings)
    results = _count_photos(settings, engine, photos)
    return RunningCount(engine, chain(list(islice(results, 1)), results))


def _count_photos(settings: Settings, engine: Engine, photos: Sequence[PhotoFile]) -> Iterator[PhotoResult]:
    def load(file: PhotoFile) -> LoadedPhotoFile:
        try:
            data = file_source(file.path, settings.max_photo_bytes).read()
            photo = engine.card.load_photo(data, settings.limits)
        except PhotoError as error:
            return LoadedPhotoFile(file, error=error)
        return LoadedPhotoFile(file, photo, photo_stats(photo.pixels), len(data))

    size = settings.batch_size
    with ThreadPoolExecutor(settings.file_threads) as pool:
        loaded = load_ahead(pool, photos, load, _DECODED_BATCHES * size)
        yield from predict(engine, loaded, size, ahead=_PREDICTED_PHOTOS // size)
