"""Outputs of networks for each photo, computed once and stored on disk: features of frozen layers, logits of teachers.

There is one file per view of the photos (the first is unchanged, the others are augmented), with a row for each photo.
Its name contains a digest of everything that it depends on, so an outdated file is never used. It gets this name when
it is complete.
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

from binwatch.text import many
from trainer.config import AugmentConfig, TrainConfig
from trainer.data.dataset import PhotoSet
from trainer.data.loader import BaseLoader, Batch, Inputs, LoaderOptions
from trainer.data.photo_loader import PhotoLoader
from trainer.data.sampler import Shard
from trainer.disk import LOCK_FILE, check_free_space, flush_to_disk, make_folder
from trainer.distributed.devices import autocast
from trainer.errors import DiskError
from trainer.models.counter import Counter

FEATURE_BATCH = 16
"""Photos per batch. Small batches stay in the CPU's cache: 57 photos/s with 16, 40 with 64 (Zen 4, bf16)."""
READ_LATER = {"views", "flip", "where"}
"""Options of [augment] that do not affect the stored features, which are mirrored when they are read."""
ADVICE = "make room (features of earlier runs may be deleted), or store them elsewhere with --cache"

Progress = Callable[[Iterator[Batch], int, str], Iterator[Batch]]
"""Wraps batches with a progress bar: (batches, photos, what)."""


@dataclass(frozen=True, slots=True)
class FeatureExtractor:
    """A network whose outputs for photos are stored."""

    name: str
    """Name for the progress bar."""
    of: Callable[[Tensor], Tensor]
    """uint8 photos (batch, h, w, 3), on the device, → a row for each, in the type that is stored."""
    digest: str
    """Digest of the network."""


class FeatureCache:
    """Features of photos in `folder`, which several runs may share. They are computed if they do not exist.

    The device is that of `train`. All views but the first are augmented by `augment`. Raises DiskError if there is not
    enough space.
    """

    def __init__(self, folder: Path, augment: AugmentConfig, train: TrainConfig, progress: Progress) -> None:
        self._folder = folder
        self._augment = augment.model_copy(update={"flip": False})  # features are mirrored when they are read
        self._train = train
        self._progress = progress

    def of_frozen_layers(self, model: Counter, photos: PhotoSet, views: int) -> list[npt.NDArray[np.float16]]:
        """Output of the frozen layers of `model` for `photos`, float16 (photos, h, w, channels) per view."""

        def rows(pixels: Tensor) -> Tensor:
            with autocast(self._train):
                found = model.features(pixels)
            return found.permute(0, 2, 3, 1).float().clamp(-65504, 65504).half()

        model.eval()
        return self.views(FeatureExtractor("features", rows, _of_frozen(model)), photos, views)

    def views(self, extractor: FeatureExtractor, photos: PhotoSet, views: int) -> list[npt.NDArray[Any]]:
        """The stored outputs for a number of views of `photos`: read-only memory maps, with a row per photo."""
        make_folder(self._folder)
        files = [self._folder / f"{self._digest(extractor, photos, view)}-{view}.npy" for view in range(views)]
        if not all(file.exists() for file in files):
            with (self._folder / LOCK_FILE).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # another run may share the folder: wait for what it computes
                self._compute_missing(extractor, photos, files)
        return [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]

    def _compute_missing(self, extractor: FeatureExtractor, photos: PhotoSet, files: list[Path]) -> None:
        for partial in self._folder.glob("*.partial"):  # of killed runs: no other run computes while this has the lock
            partial.unlink()
        missing = [view for view, file in enumerate(files) if not file.exists()]
        blank = torch.zeros(1, photos.size, photos.size, 3, dtype=torch.uint8, device=self._train.device)
        row = _rows(extractor, blank)[0]
        what = f"{extractor.name} of {many(len(photos), 'photo')} in {many(len(missing), 'view')}"
        check_free_space(self._folder, row.nbytes * len(photos) * len(missing), what, ADVICE)
        for view in missing:
            partial = files[view].with_suffix(".partial")
            try:
                _write(partial, self._batches(extractor, photos, view), (len(photos), *row.shape), row.dtype)
            except OSError as error:  # the disk has filled up meanwhile, or there is a quota
                partial.unlink(missing_ok=True)
                raise DiskError(f"{self._folder}: {what} cannot be written ({error.strerror}); {ADVICE}") from error
            partial.replace(files[view])

    def _batches(self, extractor: FeatureExtractor, photos: PhotoSet, view: int) -> Iterator[npt.NDArray[Any]]:
        loader = PhotoLoader(
            photos, FEATURE_BATCH, seed=self._train.seed, augment=self._augment if view else None, shuffle=False,
            threads=self._train.readers,
        )  # fmt: skip
        for batch in self._progress(loader.epoch(view), len(photos), f"{extractor.name}, view {view}"):
            yield _rows(extractor, batch.inputs.to(self._train.device))

    def _digest(self, extractor: FeatureExtractor, photos: PhotoSet, view: int) -> str:
        """Digest of the photos, the network, the precision and, except for the first view, the augmentation."""
        parts = [photos.digest(), str(photos.size), str(photos.jpeg_quality), extractor.digest, self._train.precision]
        if view:
            parts += [self._augment.model_dump_json(exclude=READ_LATER), str(self._train.seed)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


@torch.inference_mode()
def _rows(extractor: FeatureExtractor, pixels: Tensor) -> npt.NDArray[Any]:
    return extractor.of(pixels).cpu().numpy()


def _write(file: Path, batches: Iterable[npt.NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write a file of NumPy. It is not memory-mapped, because on a full disk a map ends the process with SIGBUS."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    done = 0
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, header)
        for rows in batches:
            out.write(rows.tobytes())
            done += len(rows)
        flush_to_disk(out)
    assert done == shape[0]


def digest_of(weights: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of weights and their names."""
    found = hashlib.sha256()
    for name, value in weights:
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _of_frozen(model: Counter) -> str:
    """Digest of the frozen part of a network."""
    weights = chain.from_iterable(step.state_dict().items() for step in model.frozen_steps())
    return f"{type(model.backbone).__name__} {' '.join(model.frozen)} {digest_of(weights)}"


class FeatureLoader(BaseLoader):
    """Stored features of photos: a random view of each, mirrored at random; float16 (batch, channels, h, w)."""

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
        views = torch.randint(len(self._views), (shard.photos,), generator=shard.random)[shard.within].tolist()
        chosen = list(zip(views, shard.positions.tolist(), strict=True))
        # Channels last in memory, which is faster on a CPU.
        maps = torch.from_numpy(np.stack([self._views[view][at] for view, at in chosen])).permute(0, 3, 1, 2)
        if self._flip:
            mirrored = (torch.rand(shard.photos, generator=shard.random) < 0.5)[shard.within]
            maps = torch.where(mirrored.view(-1, 1, 1, 1), maps.flip(3), maps)
        return Inputs(maps)
