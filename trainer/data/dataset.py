"""Photos with their labels, checked before training starts."""

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
from trainer.data.source import PhotoSource, open_source, prepared_quality
from trainer.data.split import Split
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext
from trainer.errors import DataError

NAMED = 5
"""Photos that an error message names; it counts the others."""
DIGEST = 32
"""Hexadecimal digits of a file's digest that are stored."""
FEWEST_CLASSES = 2
"""With a single class there is nothing to learn."""


@dataclass(frozen=True)
class PhotoSet:
    """Labelled photos, in the order of their keys."""

    source: PhotoSource
    rows: tuple[Row, ...]
    size: int = image.INPUT_SIZE
    """Side in pixels of a decoded photo."""
    jpeg_quality: int | None = None
    """See DataConfig."""

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
        """Items in each photo (or the smallest possible number), int64 (photos,)."""
        return np.array([row.quantity for row in self.rows], dtype=np.int64)

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """Items in each photo as training targets, int64 (photos,): see `trainer.models.targets`."""
        return np.array([~row.quantity if row.at_least else row.quantity for row in self.rows], dtype=np.int64)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class of each photo, 0 to 6, int64 (photos,), by `quantities`."""
        return np.array([class_of(row.quantity) for row in self.rows], dtype=np.int64)

    def pixels(self, positions: Iterable[int]) -> npt.NDArray[np.uint8]:
        """Decoded photos, uint8 (photos, size, size, 3). Raises DataError that names the photo."""
        decoded = []
        for key in (self.rows[position].key for position in positions):
            try:
                decoded.append(self.decode(key))
            except (PhotoError, OSError) as error:  # it could be decoded when training began
                raise DataError(f"photo {key} can no longer be read: {error}") from error
        return np.stack(decoded)

    def decode(self, key: str) -> npt.NDArray[np.uint8]:
        """One decoded photo, uint8 (size, size, 3). Raises PhotoError."""
        return image.load_photo(self.source.read(key), size=self.size, jpeg_quality=self.jpeg_quality).pixels

    def where(self, wanted: Callable[[Row], bool]) -> PhotoSet:
        """The photos whose rows are wanted."""
        return replace(self, rows=tuple(row for row in self.rows if wanted(row)))

    def of(self, split: Split) -> PhotoSet:
        """The photos of a split."""
        return self.where(lambda row: row.split is split)

    def share(self, context: DistributedContext) -> PhotoSet:
        """The photos that this process works on, of several."""
        return replace(self, rows=self.rows[context.shard(len(self))])

    def digest(self) -> str:
        """A digest that changes when photos are added or removed, or when a file's size in bytes changes."""
        sizes = self.source.sizes()
        lines = (f"{row.key} {sizes[row.key]}\n" for row in self.rows)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class DataSet:
    """The three splits, and the photos that were left out."""

    splits: dict[Split, PhotoSet]
    missing: tuple[str, ...]
    """Keys that are in the index, but have no photo."""
    unreadable: dict[str, str]
    """Key → why its photo cannot be decoded."""
    copies: tuple[tuple[Row, ...], ...] = ()
    """Byte-identical photos under several keys."""

    def __getitem__(self, split: Split) -> PhotoSet:
        return self.splits[split]

    @property
    def classes(self) -> tuple[int, ...]:
        """Indexes of the classes that training photos show, which a model can learn to predict."""
        return _classes(self[Split.TRAIN])

    def facts(self) -> dict[str, object]:
        """Photos, labels and groups per split, and photos that were left out, for the log and the model's card."""
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


Check = Callable[[Sequence[str]], Iterable[str]]
"""Wraps the keys of photos as they are decoded once (a progress bar)."""


def load_dataset(
    config: DataConfig, check: Check | None = None, context: DistributedContext = SINGLE_PROCESS
) -> DataSet:
    """Read index and photos, leave out photos that cannot be decoded, and split the others.

    Each of several processes decodes a share. Raises DataError if no photo is left, if the training photos show only
    one class, or if the processes do not have the same photos.
    """
    present, missing = present_photos(config, context)
    _check_classes(config, _by_split(present))  # now, instead of after minutes of decoding
    decoded = decode_each(config, present, check, context)
    splits = _by_split(decoded.readable)
    _check_classes(config, splits)
    return DataSet(splits, missing, decoded.unreadable, decoded.copies())


def load_photos(config: DataConfig, check: Check | None = None) -> tuple[PhotoSet, tuple[str, ...], dict[str, str]]:
    """Every photo of a known class that can be decoded; keys without a photo; keys that cannot be decoded → why."""
    present, missing = present_photos(config)
    decoded = decode_each(config, present.where(lambda row: row.of_a_class), check)
    return decoded.readable, missing, decoded.unreadable


def present_photos(
    config: DataConfig, context: DistributedContext = SINGLE_PROCESS
) -> tuple[PhotoSet, tuple[str, ...]]:
    """Every photo that is in the index and in the source, not yet decoded; keys of the index without a photo."""
    source = open_source(config.photos)
    rows = read_index(config)
    have = source.sizes()
    missing = tuple(row.key for row in rows if row.key not in have)
    kept = tuple(row for row in rows if row.key in have)
    present = PhotoSet(source, kept, config.size, config.jpeg_quality or None)
    if not present:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        named = ", ".join(missing[:NAMED])
        raise DataError(f"{config.photos}: holds none of the photos of {config.labels}, such as {named}{more}")
    _check_same(config, present, context)
    return present, missing


@dataclass(frozen=True)
class DecodedOnce:
    """The result of decoding each photo once."""

    readable: PhotoSet
    unreadable: dict[str, str]
    """Key → why its photo cannot be decoded."""
    digests: dict[str, str]
    """Key → digest of the file, for readable photos."""

    def copies(self) -> tuple[tuple[Row, ...], ...]:
        """Byte-identical photos under several keys."""
        rows: dict[str, list[Row]] = {}
        for row in self.readable.rows:
            rows.setdefault(self.digests[row.key], []).append(row)
        return tuple(tuple(same) for same in rows.values() if len(same) > 1)


def decode_each(
    config: DataConfig, photos: PhotoSet, check: Check | None = None, context: DistributedContext = SINGLE_PROCESS
) -> DecodedOnce:
    """Decode each of `photos` once. Raises DataError if none can be decoded."""
    parts = context.all_gather(_decode(photos.share(context), check or (lambda keys: keys)))
    unreadable: dict[str, str] = {key: reason for part, _ in parts for key, reason in part.items()}
    readable = photos.where(lambda row: row.key not in unreadable)
    if not readable:
        key, reason = next(iter(unreadable.items()))
        raise DataError(f"{config.photos}: none of {len(unreadable)} photos can be decoded; {key}: {reason}")
    return DecodedOnce(readable, unreadable, {key: digest for _, part in parts for key, digest in part.items()})


def check_quality(config: DataConfig) -> None:
    """Raises DataError unless data.jpeg_quality is that of photos which `prepare` has squashed.

    They have the artefacts of a JPEG, so the card must name its quality. Only training requires this: a model that was
    trained on other photos treats these like any others.
    """
    quality = prepared_quality(config.photos.parent, config.size)
    if quality is not None and quality != config.jpeg_quality:
        stored = f"as JPEGs of {config.size}×{config.size} and quality {quality}" if quality else "unchanged"
        raise DataError(
            f"{config.photos}: the photos were stored {stored};"
            f" set data.jpeg_quality={quality}, so that workers treat photos in the same way"
        )


def _by_split(photos: PhotoSet) -> dict[Split, PhotoSet]:
    """Photos of no known class ("3+") are used for training only."""
    held_out = photos.where(lambda row: row.of_a_class)
    return {split: (photos if split is Split.TRAIN else held_out).of(split) for split in Split}


def _check_same(config: DataConfig, photos: PhotoSet, context: DistributedContext) -> None:
    """Raises DataError if processes have different photos or labels: other machines have their own folders."""
    if context.world_size > 1:
        labels = hashlib.sha256(repr(photos.rows).encode()).hexdigest()
        digests = context.all_gather([photos.digest(), labels])
        other = next((rank for rank, digest in enumerate(digests) if digest != digests[0]), None)
        if other is not None:
            raise DataError(
                f"{config.photos}: process {other} has other photos or another index than process 0;"
                " give every machine the same"
            )


def _decode(photos: PhotoSet, check: Check) -> tuple[dict[str, str], dict[str, str]]:
    """Key → why the photo cannot be decoded; key → digest of the file, for photos that can be decoded."""

    def decode(key: str) -> tuple[str, str]:
        try:
            photos.decode(key)
            return "", hashlib.sha256(photos.source.read(key)).hexdigest()[:DIGEST]
        except (PhotoError, OSError) as error:
            return str(error) or type(error).__name__, ""

    keys = photos.keys
    with ThreadPoolExecutor() as pool:  # Pillow releases the GIL while it decodes
        found = dict(zip(check(keys), pool.map(decode, keys), strict=True))
    unreadable = {key: reason for key, (reason, _) in found.items() if reason}
    return unreadable, {key: digest for key, (_, digest) in found.items() if digest}


def _check_classes(config: DataConfig, splits: dict[Split, PhotoSet]) -> None:
    for split, photos in splits.items():
        if not photos:
            where = "" if config.index else f", below a folder {split}/ if others are below such"
            raise DataError(
                f"{config.labels}: no bin group falls into the {split} split; more photos are needed{where}"
            )
    learned = _classes(splits[Split.TRAIN])
    if len(learned) < FEWEST_CLASSES:
        raise DataError(
            f"{config.labels}: all training photos show {CLASSES[learned[0]]} items; add photos of other quantities"
        )
    for split, photos in splits.items():
        if not set(_classes(photos)) & set(learned):
            raise DataError(
                f"{config.labels}: the {split} photos show only quantities that no training photo shows"
                f" ({column_names(_classes(photos))}); more photos are needed"
            )


def _classes(photos: PhotoSet) -> tuple[int, ...]:
    return tuple(np.unique(photos.labels).tolist())
