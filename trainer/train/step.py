"""One optimisation step: forward and backward passes with gradient accumulation, clipping, optimiser step, EMA."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from trainer.config import TrainConfig
from trainer.data.augment import augment
from trainer.data.loader import Batch
from trainer.distributed.context import DistributedContext
from trainer.models.counter import Counter
from trainer.train.losses import Loss
from trainer.train.network import Network
from trainer.train.optimiser import create_optimiser
from trainer.train.predict import forward, inputs_on_device
from trainer.train.scheduler import LrScheduler
from trainer.train.step_timer import Clock, Stage, untimed

EMA_WARMUP = 9.0
"""Warm-up of the EMA: its decay after n steps is (1 + n) / (10 + n), up to `train.ema`, so that the initial weights
are soon forgotten."""


class TrainStep:
    """An optimisation step, and the state that it changes: the model's weights, the optimiser and the EMA.

    `steps` is the number of steps of the whole run, for the learning rate schedule. `pretrained` are the names of
    pretrained weights.
    """

    def __init__(
        self,
        model: Counter,
        pretrained: list[str],
        loss: Loss,
        config: TrainConfig,
        steps: int,
        *,
        context: DistributedContext,
        features: bool,
    ) -> None:
        self.model = model
        self.optimiser = create_optimiser(model, pretrained, config)
        self.scheduler = LrScheduler(self.optimiser, config, steps)
        # Before the EMA: with several processes, the network copies the first process's weights to all others.
        self.network = Network(model, config, context, features=features)
        # Not torch's AveragedModel, which waits for the GPU in each step because it counts steps in a tensor.
        self.ema = ModelEmaV3(model, config.ema, use_warmup=True, warmup_gamma=EMA_WARMUP, warmup_power=1.0)
        self.timer: Clock = untimed
        self._loss = loss
        self._config = config
        self._context = context
        self._features = features

    def __call__(self, step: int, micro_batches: Iterable[Batch], accumulation_steps: int) -> Tensor:
        """Take step number `step`, from 0, with `accumulation_steps` micro-batches. Return this process's loss.

        The step's loss is the mean over the photos of all micro-batches and processes. A process's loss is the sum over
        its own photos, divided by the number of all photos, so the processes' losses add up to the step's loss.
        """
        self.scheduler.set_learning_rates(step)
        total = torch.zeros((), device=self._config.device)
        for micro_step, batch in enumerate(micro_batches, start=1):
            with self.timer(Stage.TRANSFER):
                inputs = inputs_on_device(batch, self._config, features=self._features)
            if batch.augment_params is not None:  # augmented on the device, which leaves the CPU cores to the readers
                with self.timer(Stage.AUGMENT):
                    inputs = augment(inputs, batch.augment_params)
            # Gradients accumulate in each process; only the last backward pass syncs them.
            with self.network.gradient_sync(micro_step == accumulation_steps):
                with self.timer(Stage.FORWARD):
                    logits = forward(self.network, inputs, self._config)
                    loss = self._loss(logits, batch.quantities, batch.step_quantities, batch.teacher_probabilities)
                with self.timer(Stage.BACKWARD):
                    # DistributedDataParallel averages over the processes, but the losses must be added up.
                    torch.autograd.backward(loss * self._context.world_size)
            total += loss.detach()  # .item() would be a CPU–GPU sync point
        with self.timer(Stage.STEP):
            clip_grad_norm_(self.model.parameters(), self._config.clip)
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)  # frees their memory until the next backward pass
            self.ema.update(self.model, step + 2)  # timm counts from 1, and does not count step 1 as warm-up
        return total
