"""Checkpoints: weights and the whole configuration, written atomically. Reading them cannot run pickled code."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from binwatch.counts import CLASS_INDEXES, MAX_EXACT_COUNT
from trainer.config import Config
from trainer.disk import flush_to_disk
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext
from trainer.errors import CheckpointError
from trainer.models import build
from trainer.models.counter import Counter
from trainer.train.run_files import check_checkpoint

FORMAT_VERSION = 1
MAX_REASON_LENGTH = 200
"""Maximum number of characters of torch's reason in an error message: torch lists every weight."""


@dataclass
class Checkpoint:
    """A model after `epoch` epochs."""

    config: Config
    epoch: int
    weights: dict[str, Tensor]
    """The averaged weights, for evaluation and export."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row of metrics per epoch."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Data, hardware and duration, for the model's card."""
    classes: tuple[int, ...] = CLASS_INDEXES
    """Indexes of the classes that the model can predict."""
    training: dict[str, Any] = field(default_factory=dict)
    """The weights in training and the optimiser's state, for resuming. Empty in a best.pt."""

    def model(self) -> Counter:
        """Build the network with its averaged weights, in evaluation mode. Raises CheckpointError."""
        model = build(self.config.model)
        model.class_mask.restrict_to(self.classes)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            reason = [line.strip() for line in str(error).splitlines()][1:2] or [str(error)]  # the first mismatch
            raise CheckpointError(
                f"the weights do not fit the configuration beside them ({reason[0][:MAX_REASON_LENGTH]})"
            ) from error
        return model.eval()


def save(file: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` atomically: an interruption leaves the previous file unchanged. Raises CheckpointError."""
    partial = file.with_suffix(".partial")
    content = {
        "format": FORMAT_VERSION,
        "config": checkpoint.config.model_dump_json(),
        "epoch": checkpoint.epoch,
        "model": checkpoint.weights,
        "history": checkpoint.history,
        "facts": json.dumps(checkpoint.facts),
        "classes": list(checkpoint.classes),
        "training": checkpoint.training,
    }
    try:
        torch.save(content, partial)
        with partial.open("rb+") as stream:
            flush_to_disk(stream)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError
        partial.unlink(missing_ok=True)
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file}: cannot be written ({reason}); is the disk full?") from error
    partial.replace(file)


def load(file: Path, context: DistributedContext = SINGLE_PROCESS) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError if it is missing, damaged or of another release.

    With several processes, only the main one needs the file.
    """
    if context.is_main:
        check_checkpoint(file)
    try:
        source = file if context.world_size == 1 else io.BytesIO(context.read_on_main(file))
        content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, key and runtime errors, depending on the damage
        raise CheckpointError(
            f"{file}: is not a checkpoint, or is damaged; give a best.pt or last.pt that fit has written"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT_VERSION:
        raise CheckpointError(f"{file}: is not a checkpoint of this release of the trainer")
    try:
        options = json.loads(content["config"])
        options["model"].setdefault("highest", MAX_EXACT_COUNT)  # checkpoints of earlier versions lack it
        config = Config.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"{file}: its configuration is of another release ({option}: {first['msg']})") from error
    return Checkpoint(
        config=config,
        epoch=content["epoch"],
        weights=content["model"],
        history=content["history"],
        facts=json.loads(content["facts"]),
        classes=tuple(
            content.get("classes", CLASS_INDEXES)
        ),  # earlier versions did not store it, and their models can predict all
        training=content["training"],
    )
