"""Probabilities of photos, from a torch model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.config import TrainConfig
from trainer.data.batches import Batch, Batches
from trainer.devices import autocast
from trainer.models.counter import Counter


def forward(model: Counter, batch: Batch, config: TrainConfig, *, features: bool) -> Tensor:
    """Logits, float32 (batch, classes), of photos or of features."""
    inputs = batch.inputs.to(config.device, non_blocking=True)
    with autocast(config):
        if features:
            kind = torch.bfloat16 if config.precision == "bf16" else torch.float32
            logits, _ = model.from_features(inputs.to(kind))
        else:
            logits, _ = model(inputs)
    return logits.float()


@torch.inference_mode()
def logits_of(
    model: Counter,
    batches: Batches,
    config: TrainConfig,
    follow: Callable[[Iterator[Batch]], Iterator[Batch]] = lambda batches: batches,
) -> npt.NDArray[np.float32]:
    """Logits of all photos in their order, float32 (photos, classes). `batches` must not shuffle."""
    model.eval()
    found = [forward(model, batch, config, features=batches.features).cpu() for batch in follow(batches.epoch(0))]
    return torch.cat(found).numpy()
