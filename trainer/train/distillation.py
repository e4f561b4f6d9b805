"""Distillation: a student learns the mean output of teachers, which are trained models, in addition to the labels
(Hinton et al. 2015, arXiv 1503.02531).

The mean of several models is often more accurate than each of them. A student that has learned it computes as fast as
one model.
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

from binwatch.counts import column_names
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
"""Key of a run's teachers in its facts."""
INDEX_FACT = "index_sha256"
"""Key of the digest of a run's index in its facts."""


@dataclass(frozen=True)
class Teacher:
    """A trained model, and the facts about its training."""

    name: str
    """Name of the checkpoint with its folder, because most checkpoints are named best.pt."""
    model: Counter
    data: DataConfig
    """Configuration of its data set, with its input size and JPEG quality."""
    facts: dict[str, Any]
    """Name, architecture, epoch and digest, for checkpoints and the model's card."""
    digest: str
    """Digest of the network, for the feature cache."""


class Teachers:
    """The teachers of a student, on its device and with its precision.

    They compute their outputs once, before training, for each photo unchanged and mirrored. The student is trained on
    augmented photos, but the output for the unchanged photo is the better target and takes no time in a step.
    """

    def __init__(self, teachers: Sequence[Teacher], temperature: float, train: TrainConfig) -> None:
        self._teachers = teachers
        self._temperature = temperature
        self._train = train
        layout = torch.channels_last if train.channels_last else torch.contiguous_format
        for teacher in teachers:
            teacher.model.to(device=train.device, memory_format=layout)  # type: ignore[call-overload]

    def probabilities(self, photos: PhotoSet, cache: FeatureCache, *, mirrored: bool) -> Tensor:
        """Return the mean probabilities of all teachers for `photos`, float32 (photos, quantities).

        With `mirrored`, they are also the mean over each photo and its mirror image. Logits are stored in `cache`, so
        that trying another share or temperature costs no time.
        """
        views = slice(None) if mirrored else slice(1)
        logits = [np.array(self._logits(teacher, photos, cache)[:, views]) for teacher in self._teachers]
        scaled = torch.from_numpy(np.concatenate(logits, axis=1)) / self._temperature
        return torch.softmax(scaled, dim=2).mean(dim=1)

    def check_classes(self, classes: Sequence[int]) -> None:
        """Raise ConfigError if a teacher cannot predict a class that the student learns."""
        for teacher in self._teachers:
            unknown = [index for index in classes if index not in teacher.model.class_mask.classes]
            if unknown:
                raise ConfigError(
                    f"distil.teachers: {teacher.name} cannot predict {column_names(unknown)}, which training photos"
                    " show here; use a teacher that was trained on such photos"
                )

    def facts(self) -> list[dict[str, Any]]:
        """Return the facts of each teacher."""
        return [teacher.facts for teacher in self._teachers]

    def _logits(self, teacher: Teacher, photos: PhotoSet, cache: FeatureCache) -> npt.NDArray[np.float32]:
        """Return a teacher's logits for photos, unchanged and mirrored, float32 (photos, 2, quantities)."""
        network = Logits(teacher.model, features=False)

        def both_views(pixels: Tensor) -> Tensor:
            views = (pixels, pixels.flip(2))
            return torch.stack([forward(network, view, self._train) for view in views], dim=1)

        extractor = FeatureExtractor(f"teacher {teacher.name}", both_views, teacher.digest)
        resized = replace(photos, size=teacher.data.size, jpeg_quality=teacher.data.jpeg_quality or None)
        return cache.views(extractor, resized, 1)[0]


def load(
    config: DistilConfig,
    data: DataConfig,
    highest: int,
    train: TrainConfig,
    context: DistributedContext = SINGLE_PROCESS,
    saved_facts: Sequence[dict[str, Any]] | None = None,
) -> Teachers:
    """Load the configured teachers of a student with `data` and `model.highest`.

    If a run is resumed, `saved_facts` are those of its teachers. Raises CheckpointError if a teacher is missing,
    damaged, or not the one with which the run began; ConfigError if it has another model.highest, or may have been
    trained on photos of the student's validation or test split.
    """
    teachers = [_load_teacher(path, data, highest, context) for path in config.teachers]
    changed = [teacher.name for teacher in teachers if saved_facts is not None and teacher.facts not in saved_facts]
    if changed:
        raise CheckpointError(f"{', '.join(changed)}: not the model with which the run began; restore that checkpoint")
    return Teachers(teachers, config.temperature, train)


def checkpoint_name(path: Path) -> str:
    """Return the name of a checkpoint with its folder, because all runs use the same checkpoint names."""
    return "/".join(path.parts[-2:])


def _load_teacher(path: Path, data: DataConfig, highest: int, context: DistributedContext) -> Teacher:
    file = Path(context.broadcast(str(path / BEST_CHECKPOINT if path.is_dir() else path)))
    saved = checkpoint.load(file, context)
    try:
        model = saved.model()
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    teacher_highest = saved.config.model.highest
    if teacher_highest != highest:
        raise ConfigError(
            f"distil.teachers: {file} has model.highest={teacher_highest}, and this run has {highest}: its outputs are"
            f" of other quantities; set model.highest={teacher_highest}, or use another teacher"
        )
    _check_same_split(file, saved, data)
    digest = weights_digest(saved.weights.items())
    architecture = saved.config.model.architecture
    facts = {
        "name": checkpoint_name(file),
        "architecture": architecture,
        "epoch": saved.epoch,
        "weights_sha256": digest,
    }
    return Teacher(checkpoint_name(file), model, saved.config.data, facts, f"{architecture} {digest}")


def _check_same_split(file: Path, saved: Checkpoint, student: DataConfig) -> None:
    """Raise ConfigError if a teacher may have been trained on the student's validation or test photos."""
    teacher = saved.config.data
    by_column = student.split_column or teacher.split_column or student.index is None or teacher.index is None
    for option in ("split_column",) if by_column else ("group_column", "split_seed"):
        expected, actual = getattr(student, option), getattr(teacher, option)
        if actual != expected:
            raise ConfigError(
                f"distil.teachers: {file} was trained with data.{option}={actual!r}, and this run has {expected!r}: it"
                " may know validation or test photos of this run; use a teacher with the same split"
            )
    if by_column and saved.facts.get(INDEX_FACT) != index.digest(student):
        raise ConfigError(
            f"distil.teachers: {file} was trained with other labels than {student.labels}, whose splits may differ:"
            " it may know validation or test photos of this run; use a teacher with the same index, or the same folders"
        )
