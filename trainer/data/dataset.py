"""Photo sets with labels, checked before training starts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from binwatch import image
from binwatch.counts import CLASSES, class_of, column_names
from binwatch.errors import PhotoError
from trainer.config import DataConfig
from trainer.data.index import Row, read_index
from trainer.data.source import PhotoSource, open_source, prepared_jpeg_quality
from trainer.data.split import Split
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext
from trainer.errors import DataError

MAX_KEYS_IN_ERROR = 5
"""Maximum number of keys that an error message lists. It gives only the number of the rest."""
DIGEST_LENGTH = 32
"""Number of hexadecimal digits of a file's digest that are kept."""
MIN_CLASSES = 2
"""Minimum number of classes in the training photos: a single class leaves nothing to learn."""


@dataclass(frozen=True)
class PhotoSet:
    """Labelled photos, sorted by key."""

    source: PhotoSource
    rows: tuple[Row, ...]
    size: int = image.INPUT_SIZE
    """Side of a decoded photo, in pixels."""
    jpeg_quality: int | None = None
    """See DataConfig; None for original photos."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def keys(self) -> list[str]:
        return [row.key for row in self.rows]

    @property
    def groups(self) -> list[str]:
        return [row.group for row in self.rows]

    @property
    def quantities(self) -> npt.NDArray[np.int64]:
        """Items in each photo (the minimum if the label is open-ended), int64 (photos,)."""
        return np.array([row.quantity for row in self.rows], dtype=np.int64)

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """Items in each photo as training targets, int64 (photos,): see `trainer.models.targets`."""
        return np.array([~row.quantity if row.at_least else row.quantity for row in self.rows], dtype=np.int64)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class of each photo, from its quantity: 0 to 6, int64 (photos,)."""
        return np.array([class_of(row.quantity) for row in self.rows], dtype=np.int64)

    def pixels(self, positions: Iterable[int]) -> npt.NDArray[np.uint8]:
        """Decode photos to uint8 (photos, size, size, 3). Raises DataError, which names the photo."""
        decoded = []
        for key in (self.rows[position].key for position in positions):
            try:
                decoded.append(self.decode(key))
            except (PhotoError, OSError) as error:  # it could be decoded when all photos were checked
                raise DataError(f"photo {key} can no longer be read: {error}") from error
        return np.stack(decoded)

    def decode(self, key: str) -> npt.NDArray[np.uint8]:
        """Decode one photo to uint8 (size, size, 3). Raises PhotoError."""
        return image.load_photo(self.source.read(key), size=self.size, jpeg_quality=self.jpeg_quality).pixels

    def filter(self, predicate: Callable[[Row], bool]) -> PhotoSet:
        """Return the photos whose rows satisfy `predicate`."""
        return replace(self, rows=tuple(row for row in self.rows if predicate(row)))

    def select(self, split: Split) -> PhotoSet:
        """Return the photos of a split."""
        return self.filter(lambda row: row.split is split)

    def shard(self, context: DistributedContext) -> PhotoSet:
        """Return the photos that this process works on."""
        return replace(self, rows=self.rows[context.shard(len(self))])

    def digest(self) -> str:
        """Return a digest that changes when photos are added or removed, or when a file's size in bytes changes."""
        sizes = self.source.sizes()
        lines = (f"{row.key} {sizes[row.key]}\n" for row in self.rows)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class DataSet:
    """The three splits, and the photos that were left out."""

    splits: dict[Split, PhotoSet]
    missing: tuple[str, ...]
    """Keys of the index that have no photo."""
    unreadable: dict[str, str]
    """Key → why its photo cannot be decoded."""
    duplicates: tuple[tuple[Row, ...], ...] = ()
    """Byte-identical photos under several keys."""

    def __getitem__(self, split: Split) -> PhotoSet:
        return self.splits[split]

    @property
    def classes(self) -> tuple[int, ...]:
        """Indexes of the classes that training photos show and that a model can therefore learn."""
        return _classes_shown(self[Split.TRAIN])

    def facts(self) -> dict[str, object]:
        """Count photos, labels and groups per split, and photos left out, for the log and the model's card."""
        return {
            "photos": {split.value: len(photos) for split, photos in self.splits.items()},
            "labels": {
                split.value: np.bincount(photos.labels, minlength=len(CLASSES)).tolist()
                for split, photos in self.splits.items()
            },
            "groups": {split.value: len(set(photos.groups)) for split, photos in self.splits.items()},
            "missing": len(self.missing),
            "unreadable": len(self.unreadable),
        }


Progress = Callable[[Sequence[str]], Iterable[str]]
"""Wraps the keys of photos in a progress bar."""


def load_dataset(
    config: DataConfig, progress: Progress | None = None, context: DistributedContext = SINGLE_PROCESS
) -> DataSet:
    """Read the index and the photos, leave out photos that cannot be decoded, and split the others.

    Each process decodes its shard of the photos. Raises DataError if a split has no photos, if the training photos show
    only one class, or if the processes have different photos.
    """
    photos, missing = find_photos(config, context)
    _check_classes(config, _split_photos(photos))  # before decoding, which takes minutes
    decoded = decode_photos(config, photos, progress, context)
    splits = _split_photos(decoded.readable)
    _check_classes(config, splits)
    return DataSet(splits, missing, decoded.unreadable, decoded.duplicates())


def load_photos(
    config: DataConfig, progress: Progress | None = None
) -> tuple[PhotoSet, tuple[str, ...], dict[str, str]]:
    """Return the photos of a known class that can be decoded, the missing keys, and unreadable key → reason."""
    photos, missing = find_photos(config)
    decoded = decode_photos(config, photos.filter(lambda row: row.has_known_class), progress)
    return decoded.readable, missing, decoded.unreadable


def find_photos(config: DataConfig, context: DistributedContext = SINGLE_PROCESS) -> tuple[PhotoSet, tuple[str, ...]]:
    """Return the photos of the index that exist, not yet decoded, and the keys of the index without a photo.

    Raises DataError if none exists, or if the processes have different photos.
    """
    source = open_source(config.photos)
    rows = read_index(config)
    existing = source.sizes()
    missing = tuple(row.key for row in rows if row.key not in existing)
    present = tuple(row for row in rows if row.key in existing)
    if not present:
        more = f" and {len(missing) - MAX_KEYS_IN_ERROR} more" if len(missing) > MAX_KEYS_IN_ERROR else ""
        keys = ", ".join(missing[:MAX_KEYS_IN_ERROR])
        raise DataError(f"{config.photos}: holds none of the photos of {config.labels}, such as {keys}{more}")
    photos = PhotoSet(source, present, config.size, config.jpeg_quality or None)
    _check_same_photos(config, photos, context)
    return photos, missing


@dataclass(frozen=True)
class DecodedPhotos:
    """The result of decoding every photo once, to check it."""

    readable: PhotoSet
    unreadable: dict[str, str]
    """Key → why its photo cannot be decoded."""
    digests: dict[str, str]
    """Key → digest of the file, of readable photos."""

    def duplicates(self) -> tuple[tuple[Row, ...], ...]:
        """Return groups of byte-identical photos that have several keys."""
        rows: dict[str, list[Row]] = {}
        for row in self.readable.rows:
            rows.setdefault(self.digests[row.key], []).append(row)
        return tuple(tuple(group) for group in rows.values() if len(group) > 1)


def decode_photos(
    config: DataConfig, photos: PhotoSet, progress: Progress | None = None, context: DistributedContext = SINGLE_PROCESS
) -> DecodedPhotos:
    """Decode every photo once. Each process decodes its shard. Raises DataError if none can be decoded."""
    shards = context.all_gather(_decode_shard(photos.shard(context), progress or (lambda keys: keys)))
    unreadable: dict[str, str] = {key: reason for reasons, _ in shards for key, reason in reasons.items()}
    readable = photos.filter(lambda row: row.key not in unreadable)
    if not readable:
        key, reason = next(iter(unreadable.items()))
        raise DataError(f"{config.photos}: none of {len(unreadable)} photos can be decoded; {key}: {reason}")
    return DecodedPhotos(
        readable, unreadable, {key: digest for _, digests in shards for key, digest in digests.items()}
    )


def check_jpeg_quality(config: DataConfig) -> None:
    """Raise DataError unless data.jpeg_quality is that of the photos that `prepare` has stored.

    These photos have the artefacts of a JPEG, so the card must name its quality. Only training requires this: a model
    that was trained on other photos treats these like any others.
    """
    quality = prepared_jpeg_quality(config.photos.parent, config.size)
    if quality is not None and quality != config.jpeg_quality:
        stored = f"as JPEGs of {config.size}×{config.size} and quality {quality}" if quality else "unchanged"
        raise DataError(
            f"{config.photos}: the photos were stored {stored};"
            f" set data.jpeg_quality={quality}, so that workers treat photos in the same way"
        )


def _split_photos(photos: PhotoSet) -> dict[Split, PhotoSet]:
    """Return the photos of each split. Photos without a known class ("3+") are used for training only."""
    held_out = photos.filter(lambda row: row.has_known_class)
    return {split: (photos if split is Split.TRAIN else held_out).select(split) for split in Split}


def _check_same_photos(config: DataConfig, photos: PhotoSet, context: DistributedContext) -> None:
    """Raise DataError if processes have different photos or labels: each machine has its own folders."""
    if context.world_size > 1:
        labels = hashlib.sha256(repr(photos.rows).encode()).hexdigest()
        digests = context.all_gather([photos.digest(), labels])
        different = next((rank for rank, digest in enumerate(digests) if digest != digests[0]), None)
        if different is not None:
            raise DataError(
                f"{config.photos}: process {different} has other photos or another index than process 0;"
                " give every machine the same"
            )


def _decode_shard(photos: PhotoSet, progress: Progress) -> tuple[dict[str, str], dict[str, str]]:
    """Return key → why the photo cannot be decoded, and key → digest of the file for photos that can be decoded."""

    def decode(key: str) -> tuple[str, str]:
        try:
            photos.decode(key)
            return "", hashlib.sha256(photos.source.read(key)).hexdigest()[:DIGEST_LENGTH]
        except (PhotoError, OSError) as error:
            return str(error) or type(error).__name__, ""

    keys = photos.keys
    with ThreadPoolExecutor() as pool:  # Pillow releases the GIL while it decodes
        results = dict(zip(progress(keys), pool.map(decode, keys), strict=True))
    unreadable = {key: reason for key, (reason, _) in results.items() if reason}
    return unreadable, {key: digest for key, (_, digest) in results.items() if digest}


def _check_classes(config: DataConfig, splits: dict[Split, PhotoSet]) -> None:
    for split, photos in splits.items():
        if not photos:
            where = "" if config.index else f", in a folder {split}/ if there are such folders for other splits"
            raise DataError(
                f"{config.labels}: no bin group falls into the {split} split; more photos are needed{where}"
            )
    learned = _classes_shown(splits[Split.TRAIN])
    if len(learned) < MIN_CLASSES:
        raise DataError(
            f"{config.labels}: all training photos show {CLASSES[learned[0]]} items; add photos of other quantities"
        )
    for split, photos in splits.items():
        if not set(_classes_shown(photos)) & set(learned):
            raise DataError(
                f"{config.labels}: the {split} photos show only quantities that no training photo shows"
                f" ({column_names(_classes_shown(photos))}); more photos are needed"
            )


def _classes_shown(photos: PhotoSet) -> tuple[int, ...]:
    return tuple(np.unique(photos.labels).tolist())
