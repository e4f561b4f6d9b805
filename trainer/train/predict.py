"""Logits of photos by a torch model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.data.loader import Batch, Loader
from trainer.distributed.devices import autocast
from trainer.models.counter import Counter
from trainer.train.prefetch import prefetch


class Logits(nn.Module):
    """Computes the logits of a counter from photos, or from features of photos.

    It is a module because torch compiles and distributes modules.
    """

    def __init__(self, model: Counter, *, features: bool) -> None:
        super().__init__()
        self.model = model
        self._features = features

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = (self.model.from_features(inputs) if self._features else self.model(inputs))[0]
        return logits


def inputs_on_device(batch: Batch, config: TrainConfig, *, features: bool) -> Tensor:
    """Return the batch's inputs on the device; features are converted to the precision of the network."""
    inputs = batch.inputs.to(config.device)
    if not features:
        return inputs
    return inputs.to(torch.bfloat16 if config.precision == "bf16" else torch.float32)


def forward(network: Callable[[Tensor], Tensor], inputs: Tensor, config: TrainConfig) -> Tensor:
    """Compute logits, float32 (batch, quantities), by a network such as `Logits`."""
    with autocast(config):
        logits = network(inputs)
    return logits.float()


@torch.inference_mode()
def predict_logits(
    model: Counter,
    loader: Loader,
    config: TrainConfig,
    progress: Callable[[Iterator[Batch]], Iterator[Batch]] = lambda batches: batches,
) -> npt.NDArray[np.float32]:
    """Compute the logits of all photos, in order, float32 (photos, quantities). `loader` must not shuffle."""
    network = Logits(model.eval(), features=loader.features)
    batches = prefetch(progress(loader.epoch(0)), config.device)
    logits = [forward(network, inputs_on_device(batch, config, features=loader.features), config) for batch in batches]
    return torch.cat(logits or [torch.zeros(0, model.quantities)]).cpu().numpy()  # the only CPU–GPU sync point
