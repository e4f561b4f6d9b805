"""Counts the photos of a folder, without the database, whose libraries take as long to load as a few batches."""

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

_DECODED = 4
"""Batches decoded ahead."""
_COUNTED = 128
"""Photos passed to the model ahead: on most machines enough to keep it busy until the database has loaded."""


@dataclass(frozen=True, slots=True)
class LoadedPhotoFile:
    """A photo's file, read and decoded, or the error that prevented it."""

    file: PhotoFile
    photo: Photo | None = None
    stats: PhotoStats | None = None
    size: int | None = None
    error: PhotoError | None = None


Answer = tuple[LoadedPhotoFile, Prediction | PhotoError | None]


class RunningCount(NamedTuple):
    """A model that counts in the background, and its answers in the order of the photos."""

    engine: Engine
    answers: Iterator[Answer]


def start(settings: Settings, bundle: Bundle, photos: Sequence[PhotoFile]) -> RunningCount:
    """Load the model, and count until the first batch is done."""
    engine = Engine.from_settings(bundle, settings)
    answers = _answers(settings, engine, photos)
    return RunningCount(engine, chain(list(islice(answers, 1)), answers))


def _answers(settings: Settings, engine: Engine, photos: Sequence[PhotoFile]) -> Iterator[Answer]:
    def load(file: PhotoFile) -> LoadedPhotoFile:
        try:
            data = file_source(file.path, settings.max_photo_bytes).read()
            photo = engine.card.load_photo(data, settings.limits)
        except PhotoError as error:
            return LoadedPhotoFile(file, error=error)
        return LoadedPhotoFile(file, photo, photo_stats(photo.pixels), len(data))

    size = settings.batch_size
    with ThreadPoolExecutor(settings.file_threads) as pool:
        yield from predict(engine, load_ahead(pool, photos, load, _DECODED * size), size, ahead=_COUNTED // size)
