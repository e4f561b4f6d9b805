"""Network outputs computed once per photo and stored on disk: features of frozen layers, and logits of teachers.

There is one file per view of the photos (the first view is unchanged, the others are augmented), with one row per
photo. The file name contains a digest of everything that the content depends on, so an outdated file is never used.
A file gets this name only when it is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from binwatch.text import count_noun
from trainer.config import AugmentConfig, TrainConfig
from trainer.data.dataset import PhotoSet
from trainer.data.loader import BaseLoader, Batch, Inputs, LoaderOptions
from trainer.data.photo_loader import PhotoLoader
from trainer.data.sampler import Shard
from trainer.disk import LOCK_FILE, check_free_space, flush_to_disk, make_folder
from trainer.distributed.devices import autocast
from trainer.errors import DiskError
from trainer.models.counter import Counter

FEATURE_BATCH_SIZE = 16
"""Number of photos per batch. Small batches stay in the CPU's cache: 57 photos/s with 16, 40 with 64 (Zen 4, bf16)."""
UNSTORED_OPTIONS = {"views", "flip", "where"}
"""Options of [augment] that do not affect stored features. Features are mirrored when they are read."""
DISK_FULL_ADVICE = "make room (features of earlier runs may be deleted), or store them elsewhere with --cache"

Progress = Callable[[Iterator[Batch], int, str], Iterator[Batch]]
"""Wraps batches in a progress bar: (batches, photos, description)."""


@dataclass(frozen=True, slots=True)
class FeatureExtractor:
    """A network whose outputs are stored."""

    name: str
    """Name for the progress bar."""
    extract: Callable[[Tensor], Tensor]
    """uint8 photos (batch, h, w, 3) on the device → one row per photo, in the dtype that is stored."""
    digest: str
    """Digest of the network."""


class FeatureCache:
    """Stored features of photos in `folder`, which several runs may share. Missing features are computed.

    The device is that of `train`. All views except the first are augmented as in `augment`. Raises DiskError if there
    is not enough space.
    """

    def __init__(self, folder: Path, augment: AugmentConfig, train: TrainConfig, progress: Progress) -> None:
        self._folder = folder
        self._augment = augment.model_copy(update={"flip": False})  # features are mirrored when they are read
        self._train = train
        self._progress = progress

    def frozen_features(self, model: Counter, photos: PhotoSet, views: int) -> list[npt.NDArray[np.float16]]:
        """Return the output of the frozen layers of `model`, float16 (photos, h, w, channels) per view."""

        def extract(pixels: Tensor) -> Tensor:
            with autocast(self._train):
                features = model.features(pixels)
            return features.permute(0, 2, 3, 1).float().clamp(-65504, 65504).half()

        model.eval()
        return self.views(FeatureExtractor("features", extract, _frozen_digest(model)), photos, views)

    def views(self, extractor: FeatureExtractor, photos: PhotoSet, views: int) -> list[npt.NDArray[Any]]:
        """Return the outputs for `views` views of `photos`: read-only memory maps, with one row per photo."""
        make_folder(self._folder)
        files = [self._folder / f"{self._digest(extractor, photos, view)}-{view}.npy" for view in range(views)]
        if not all(file.exists() for file in files):
            with (self._folder / LOCK_FILE).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # wait for other runs that share the folder
                self._compute_missing(extractor, photos, files)
        return [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]

    def _compute_missing(self, extractor: FeatureExtractor, photos: PhotoSet, files: list[Path]) -> None:
        for partial in self._folder.glob("*.partial"):  # left by killed runs, because this run has the lock
            partial.unlink()
        missing = [view for view, file in enumerate(files) if not file.exists()]
        blank = torch.zeros(1, photos.size, photos.size, 3, dtype=torch.uint8, device=self._train.device)
        row = _extract(extractor, blank)[0]
        description = f"{extractor.name} of {count_noun(len(photos), 'photo')} in {count_noun(len(missing), 'view')}"
        check_free_space(self._folder, row.nbytes * len(photos) * len(missing), description, DISK_FULL_ADVICE)
        for view in missing:
            partial = files[view].with_suffix(".partial")
            try:
                _write_npy(partial, self._batches(extractor, photos, view), (len(photos), *row.shape), row.dtype)
            except OSError as error:  # the disk has filled up in the meantime, or there is a quota
                partial.unlink(missing_ok=True)
                raise DiskError(
                    f"{self._folder}: {description} cannot be written ({error.strerror}); {DISK_FULL_ADVICE}"
                ) from error
            partial.replace(files[view])

    def _batches(self, extractor: FeatureExtractor, photos: PhotoSet, view: int) -> Iterator[npt.NDArray[Any]]:
        loader = PhotoLoader(
            photos, FEATURE_BATCH_SIZE, seed=self._train.seed, augment=self._augment if view else None, shuffle=False,
            threads=self._train.readers,
        )  # fmt: skip
        for batch in self._progress(loader.epoch(view), len(photos), f"{extractor.name}, view {view}"):
            yield _extract(extractor, batch.inputs.to(self._train.device))

    def _digest(self, extractor: FeatureExtractor, photos: PhotoSet, view: int) -> str:
        """Return the digest of photos, network, precision and, except for the first view, the augmentation."""
        parts = [photos.digest(), str(photos.size), str(photos.jpeg_quality), extractor.digest, self._train.precision]
        if view:
            parts += [self._augment.model_dump_json(exclude=UNSTORED_OPTIONS), str(self._train.seed)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


@torch.inference_mode()
def _extract(extractor: FeatureExtractor, pixels: Tensor) -> npt.NDArray[Any]:
    return extractor.extract(pixels).cpu().numpy()


def _write_npy(file: Path, batches: Iterable[npt.NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write an .npy file. It is not memory-mapped, because on a full disk a map ends the process with SIGBUS."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    written = 0
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for rows in batches:
            stream.write(rows.tobytes())
            written += len(rows)
        flush_to_disk(stream)
    assert written == shape[0]


def weights_digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Return the SHA-256 of weights and their names."""
    digest = hashlib.sha256()
    for name, value in weights:
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _frozen_digest(model: Counter) -> str:
    """Return the digest of the frozen part of a network."""
    weights = chain.from_iterable(module.state_dict().items() for module in model.frozen_modules())
    return f"{type(model.backbone).__name__} {' '.join(model.frozen_units)} {weights_digest(weights)}"


class FeatureLoader(BaseLoader):
    """Loads stored features: a random view of each photo, mirrored at random, float16 (batch, channels, h, w)."""

    features = True

    def __init__(
        self,
        views: list[npt.NDArray[np.float16]],
        photos: PhotoSet,
        batch_size: int,
        *,
        flip: bool,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(photos, batch_size, **options)
        self._views = views
        self._flip = flip

    def inputs(self, shard: Shard) -> Inputs:
        views = torch.randint(len(self._views), (shard.step_photos,), generator=shard.random)[
            shard.positions_in_step
        ].tolist()
        rows = [self._views[view][position] for view, position in zip(views, shard.positions.tolist(), strict=True)]
        maps = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)  # channels last in memory is faster on a CPU
        if self._flip:
            mirrored = (torch.rand(shard.step_photos, generator=shard.random) < 0.5)[shard.positions_in_step]
            maps = torch.where(mirrored.view(-1, 1, 1, 1), maps.flip(3), maps)
        return Inputs(maps)
