"""Teachers: trained models whose mean output a student learns in addition to the labels (Hinton et al. 2015, arXiv
1503.02531).

The mean of several models is often more accurate than each of them. A student that learns it takes no longer to compute
than one model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from binwatch.counts import names_of
from trainer.config import DataConfig, DistilConfig, TrainConfig
from trainer.data import index
from trainer.data.dataset import PhotoSet
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext
from trainer.errors import CheckpointError, ConfigError
from trainer.models.counter import Counter
from trainer.train import checkpoint
from trainer.train.checkpoint import Checkpoint
from trainer.train.features import FeatureCache, FeatureExtractor, weights_digest
from trainer.train.predict import Logits, forward
from trainer.train.run_files import BEST_CHECKPOINT

TEACHERS_FACT = "teachers"
"""Fact of a run: its teachers."""
INDEX_FACT = "index_sha256"
"""Fact of a run: the digest of its index."""


@dataclass(frozen=True)
class Teacher:
    """One teacher."""

    name: str
    """Name of the checkpoint with its folder, because most checkpoints are named best.pt."""
    model: Counter
    data: DataConfig
    """Its own input size and JPEG quality."""
    facts: dict[str, Any]
    digest: str


class Teachers:
    """All teachers, on the student's device and with its precision.

    They compute their outputs once, before training, for each photo unchanged and mirrored. The student sees augmented
    photos; the output for the unchanged photo is the better target, and takes no time in a step.
    """

    def __init__(self, teachers: Sequence[Teacher], temperature: float, train: TrainConfig) -> None:
        self._teachers = teachers
        self._temperature = temperature
        self._train = train
        layout = torch.channels_last if train.channels_last else torch.contiguous_format
        for each in teachers:
            each.model.to(device=train.device, memory_format=layout)  # type: ignore[call-overload]

    def probabilities(self, photos: PhotoSet, cache: FeatureCache, *, mirrored: bool) -> Tensor:
        """Their mean probabilities of `photos`, unchanged and, if wanted, `mirrored`, float32 (photos, quantities).

        Their logits are stored in `cache`, so that another share or temperature costs no time.
        """
        ways = slice(None) if mirrored else slice(1)
        logits = [np.array(self._logits(each, photos, cache)[:, ways]) for each in self._teachers]
        scaled = torch.from_numpy(np.concatenate(logits, axis=1)) / self._temperature
        return torch.softmax(scaled, dim=2).mean(dim=1)

    def check_classes(self, classes: Sequence[int]) -> None:
        """Raises ConfigError if a teacher cannot predict a class that the student learns."""
        for each in self._teachers:
            unknown = [index for index in classes if index not in each.model.class_mask.classes]
            if unknown:
                raise ConfigError(
                    f"distil.teachers: {each.name} cannot predict {names_of(unknown)}, which training photos show here;"
                    " use a teacher that was trained on such photos"
                )

    def facts(self) -> list[dict[str, Any]]:
        """Name, architecture, epoch and digest of each teacher, for checkpoints and the model's card."""
        return [each.facts for each in self._teachers]

    def _logits(self, teacher: Teacher, photos: PhotoSet, cache: FeatureCache) -> npt.NDArray[np.float32]:
        """Logits of one teacher for photos, unchanged and mirrored, float32 (photos, 2, quantities)."""
        network = Logits(teacher.model, features=False)

        def both(pixels: Tensor) -> Tensor:
            ways = (pixels, pixels.flip(2))
            return torch.stack([forward(network, each, self._train) for each in ways], dim=1)

        extractor = FeatureExtractor(f"teacher {teacher.name}", both, teacher.digest)
        theirs = replace(photos, size=teacher.data.size, jpeg_quality=teacher.data.jpeg_quality or None)
        return cache.views(extractor, theirs, 1)[0]


def load(
    config: DistilConfig,
    data: DataConfig,
    highest: int,
    train: TrainConfig,
    context: DistributedContext = SINGLE_PROCESS,
    known: Sequence[dict[str, Any]] | None = None,
) -> Teachers:
    """The configured teachers of a student with `data` and `model.highest`. If a run is resumed, they must be `known`.

    Raises CheckpointError if one is missing, damaged, or not the one with which the run began; ConfigError if it has
    another model.highest, or may have been trained on photos of the student's validation or test split.
    """
    found = Teachers([_teacher(path, data, highest, context) for path in config.teachers], config.temperature, train)
    other = [each["name"] for each in found.facts() if known is not None and each not in known]
    if other:
        raise CheckpointError(f"{', '.join(other)}: not the model with which the run began; restore that checkpoint")
    return found


def named(path: Path) -> str:
    """The name of a teacher's checkpoint, with its folder, because runs give their checkpoints the same names."""
    return "/".join(path.parts[-2:])


def _teacher(path: Path, data: DataConfig, highest: int, context: DistributedContext) -> Teacher:
    file = Path(context.broadcast(str(path / BEST_CHECKPOINT if path.is_dir() else path)))
    saved = checkpoint.load(file, context)
    try:
        model = saved.model()
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    theirs = saved.config.model.highest
    if theirs != highest:
        raise ConfigError(
            f"distil.teachers: {file} has model.highest={theirs}, and this run has {highest}: its outputs are of other"
            f" quantities; set model.highest={theirs}, or use another teacher"
        )
    _check_data(file, saved, data)
    digest = weights_digest(saved.weights.items())
    architecture = saved.config.model.architecture
    facts = {"name": named(file), "architecture": architecture, "epoch": saved.epoch, "weights_sha256": digest}
    return Teacher(named(file), model, saved.config.data, facts, f"{architecture} {digest}")


def _check_data(file: Path, saved: Checkpoint, own: DataConfig) -> None:
    """Raises ConfigError if a teacher may have been trained on the student's validation or test photos."""
    theirs = saved.config.data
    by_column = own.split_column or theirs.split_column or own.index is None or theirs.index is None
    for option in ("split_column",) if by_column else ("group_column", "split_seed"):
        before, now = getattr(theirs, option), getattr(own, option)
        if before != now:
            raise ConfigError(
                f"distil.teachers: {file} was trained with data.{option}={before!r}, and this run has {now!r}: it may"
                " know validation or test photos of this run; use a teacher with the same split"
            )
    if by_column and saved.facts.get(INDEX_FACT) != index.digest(own):
        raise ConfigError(
            f"distil.teachers: {file} was trained with other labels than {own.labels}, whose splits may differ: it may"
            " know validation or test photos of this run; use a teacher with the same index, or the same folders"
        )
