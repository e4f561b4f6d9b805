"""What the frozen part of a network sees in each photo, computed once and kept on disk.

One file per view of the photos (the first as they are, the others augmented), float16 (photos, h, w, channels). Its
name is a digest of everything that it depends on, so a stale file is never used; it gets that name only when it is
whole.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.config import AugmentConfig, Config
from trainer.data.augment import Changes
from trainer.data.batches import PhotoBatches
from trainer.data.dataset import PhotoSet
from trainer.data.epochs import Batch, Epochs, Part
from trainer.devices import autocast
from trainer.models.counter import Counter
from trainer.ranks import ALONE, Ranks

FEATURE_BATCH = 16
"""Photos computed at a time. Small batches stay in the CPU's cache: 57 photos/s with 16, 40 with 64 (Zen 4, bf16)."""
LOCK = "lock"
"""File in the folder of features: one run computes at a time, since several may share the folder."""

Progress = Callable[[Iterator[Batch], int, str], Iterator[Batch]]
"""Wraps batches with a progress bar: (batches, photos, what)."""


def compute(
    model: Counter, photos: PhotoSet, config: Config, views: int, folder: Path, progress: Progress
) -> list[npt.NDArray[np.float16]]:
    """The features of `photos` in `views` views, from `folder` where they are already there.

    Each is a read-only map of a file, float16 (photos, h, w, channels).
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = _digest(model, photos, config)
    return [_view(model, photos, config, view, folder / f"{base}-{view}.npy", progress) for view in range(views)]


def _view(
    model: Counter, photos: PhotoSet, config: Config, view: int, file: Path, progress: Progress
) -> npt.NDArray[np.float16]:
    if not file.exists():
        with (file.parent / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be at it: wait for what it computes
            if not file.exists():
                partial = file.with_suffix(".partial")
                _write(partial, model, photos, config, view, progress)
                partial.replace(file)
    kept: npt.NDArray[np.float16] = np.load(file, mmap_mode="r", allow_pickle=False)
    return kept


def _write(file: Path, model: Counter, photos: PhotoSet, config: Config, view: int, progress: Progress) -> None:
    augment = config.augment.model_copy(update={"flip": False}) if view else None  # features are mirrored when read
    batches = PhotoBatches(
        photos, FEATURE_BATCH, seed=config.train.seed, augment=augment, shuffle=False, threads=config.train.readers
    )
    out: np.memmap[Any, np.dtype[np.float16]] | None = None
    done = 0
    model.eval()
    for batch in progress(batches.epoch(view), len(photos), f"features, view {view}"):
        with torch.inference_mode(), autocast(config.train):
            found = model.features(batch.inputs.to(config.train.device))
        rows = found.permute(0, 2, 3, 1).float().clamp(-65504, 65504).half().cpu().numpy()
        if out is None:
            shape = (len(photos), *rows.shape[1:])
            out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
        out[done : done + len(rows)] = rows
        done += len(rows)
    assert out is not None  # a PhotoSet in use is never empty
    assert done == len(photos)
    out.flush()


def _digest(model: Counter, photos: PhotoSet, config: Config) -> str:
    """Of the photos, the frozen weights, the augmentation and the precision."""
    found = hashlib.sha256(photos.digest().encode())
    found.update(_settings(config).encode())
    for step in model.frozen_steps():
        for name, value in step.state_dict().items():
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _settings(config: Config) -> str:
    augment: AugmentConfig = config.augment.model_copy(update={"views": 1})
    model = config.model
    return (
        f"{augment.model_dump_json()} {model.architecture} {model.freeze} {config.train.precision} {config.train.seed}"
    )


class FeatureBatches(Epochs):
    """Features of photos, a random view of each, mirrored at random; float16 (batch, channels, h, w)."""

    features = True

    def __init__(
        self,
        views: list[npt.NDArray[np.float16]],
        photos: PhotoSet,
        batch_size: int,
        *,
        seed: int,
        flip: bool,
        shuffle: bool,
        threads: int,
        passes: int = 1,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(photos, batch_size, seed=seed, shuffle=shuffle, threads=threads, passes=passes, ranks=ranks)
        self._views = views
        self._flip = flip

    def inputs(self, part: Part) -> tuple[Tensor, Changes | None]:
        views = torch.randint(len(self._views), (part.photos,), generator=part.random)[part.within].tolist()
        rows = [self._views[view][at] for view, at in zip(views, part.positions.tolist(), strict=True)]
        maps = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)  # channels last in memory, as the CPU likes it
        if self._flip:
            mirrored = (torch.rand(part.photos, generator=part.random) < 0.5)[part.within]
            maps = torch.where(mirrored.view(-1, 1, 1, 1), maps.flip(3), maps)
        return maps, None
