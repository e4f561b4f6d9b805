"""The training loop: train an epoch, validate, write a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import Config
from trainer.data.loader import Batch, Loader
from trainer.data.sampler import seeded_generator
from trainer.disk import write_csv
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext
from trainer.errors import DivergedError
from trainer.models.counter import Counter
from trainer.models.targets import class_logits, classes_of
from trainer.train import checkpoint
from trainer.train.checkpoint import Checkpoint
from trainer.train.losses import Loss
from trainer.train.predict import predict_logits
from trainer.train.prefetch import prefetch
from trainer.train.run_files import BEST_CHECKPOINT, LAST_CHECKPOINT, LOG_FILE
from trainer.train.step import TrainStep

KEPT_FROM_FACT = "kept_from_epoch"
"""Key in a run's facts, set if its best.pt was lost: the first of the epochs among which the best is then chosen."""

Progress = Callable[[Iterator[Batch], int, str], Iterator[Batch]]
"""Wraps an epoch's batches in a progress bar: (batches, photos, description)."""


@dataclass
class TrainingRun:
    """A training run in a folder, with the state that changes from step to step. Each process has its own object."""

    config: Config
    folder: Path
    model: Counter
    pretrained: list[str]
    """Names of the backbone's pretrained weights."""
    train: Loader
    validation: Loader
    """Batches of this process's shard of the validation photos."""
    facts: dict[str, Any]
    weights: Tensor | None = None
    """Class weights of the loss, float (classes,), or None."""
    context: DistributedContext = SINGLE_PROCESS
    history: list[dict[str, float]] = field(default_factory=list)
    epoch: int = 0

    def __post_init__(self) -> None:
        config = self.config.train
        loss = Loss(config, self.weights, self.config.distil, self.model.class_mask.classes, self.config.model.highest)
        self.step = TrainStep(
            self.model, self.pretrained, loss, config, config.epochs * self.epoch_steps, context=self.context,
            features=self.train.features,
        )  # fmt: skip

    @property
    def epoch_steps(self) -> int:
        """Number of steps per epoch."""
        return len(self.train) // self.train.accumulation_steps

    @property
    def ema(self) -> Counter:
        """The model with averaged weights, which is validated and stored as best.pt."""
        return cast(Counter, self.step.ema.module)

    def resume(self, saved: Checkpoint) -> None:
        """Restore the state of `saved`. The result of the run is the same as without the interruption."""
        self.model.load_state_dict(saved.training["model"])
        self.ema.load_state_dict(saved.weights)
        self.step.optimiser.load_state_dict(saved.training["optimiser"])
        self.history = list(saved.history)
        self.facts = saved.facts
        self.epoch = saved.epoch

    def finished(self) -> bool:
        """Return whether all epochs are done, or `train.patience` epochs have passed without a better one."""
        patience = self.config.train.patience
        epochs_since_best = self.epoch - self.best_epoch()
        out_of_patience = patience > 0 and self.epoch > 0 and epochs_since_best >= patience
        return self.epoch >= self.config.train.epochs or out_of_patience

    def best_epoch(self) -> int:
        """Return the epoch, from 1, with the best validation accuracy (if equal, the smaller RMSE); 0 if none."""
        return best_epoch(self.history, self.facts)

    def run_epoch(self, progress: Progress) -> dict[str, float]:
        """Train one epoch, validate, and write log and checkpoints. Return the epoch's row of the log."""
        start = time.monotonic()
        self._seed()
        loss = self._train(progress)
        train_seconds = time.monotonic() - start
        # Batch norm statistics are those of each process's own photos. Their mean over the processes covers all photos.
        buffers = [*self.model.buffers(), *self.ema.buffers()]
        self.context.all_reduce_mean([buffer for buffer in buffers if buffer.is_floating_point()])
        row = {"epoch": self.epoch + 1, "train_loss": loss, **self.validate()}
        self._check_finite(row)
        row |= {"photos_per_second": self.train.photos / train_seconds, "seconds": time.monotonic() - start}
        self.epoch += 1
        # All processes use the main process's metrics, so that all stop after the same epoch.
        self.history.append(self.context.broadcast(row))
        if self.context.is_main:
            self.save()
        return self.history[-1]

    def train_steps(self, batches: Iterable[Batch], first: int) -> Tensor:
        """Train on `batches`, from step number `first`. Return the sum of this process's step losses."""
        self.model.train()
        total = torch.zeros((), device=self.config.train.device)
        accumulation_steps = self.train.accumulation_steps
        prefetched = prefetch(batches, self.config.train.device, self.step.timer)
        for step, batch in enumerate(prefetched, start=first):
            micro_batches = chain([batch], islice(prefetched, accumulation_steps - 1))
            total += self.step(step, micro_batches, accumulation_steps)
        return total

    def validate(self) -> dict[str, float]:
        """Compute the metrics of the averaged weights on the validation photos of all processes."""
        shard_logits = torch.from_numpy(predict_logits(self.ema, self.validation, self.config.train))
        logits = class_logits(self.context.all_gather_rows(shard_logits))
        labels = classes_of(self.context.all_gather_rows(self.validation.quantities))
        error = (logits.argmax(dim=1) - labels).float()
        # The loss of a class that the model cannot predict is meaningless (see MASKED_LOGIT), so it is left out.
        learned = torch.isin(labels, torch.tensor(self.model.class_mask.classes))
        return {
            "val_loss": float(functional.cross_entropy(logits[learned], labels[learned])),
            "val_accuracy": float((error == 0).float().mean()),
            "val_within_one": float((error.abs() <= 1).float().mean()),
            "val_mae": float(error.abs().mean()),
            "val_rmse": float(error.square().mean().sqrt()),
        }

    def _check_finite(self, row: dict[str, float]) -> None:
        """Raise DivergedError if the loss is not finite: weights never recover, so the last checkpoint is kept."""
        if not math.isfinite(row["train_loss"] + row["val_loss"]):
            kept = f"; {LAST_CHECKPOINT} keeps epoch {self.epoch}" if self.epoch else ""
            raise DivergedError(
                f"epoch {row['epoch']}: the loss is no longer a number (training {row['train_loss']:.3g}, validation"
                f" {row['val_loss']:.3g}); start again with a smaller train.learning_rate, which is"
                f" {self.config.train.learning_rate:g} now{kept}"
            )

    def save(self) -> None:
        """Write log and checkpoints."""
        self.facts["seconds"] = sum(row["seconds"] for row in self.history)
        classes = self.model.class_mask.classes
        saved = Checkpoint(self.config, self.epoch, self.ema.state_dict(), self.history, self.facts, classes)
        if self.best_epoch() == self.epoch:
            checkpoint.save(self.folder / BEST_CHECKPOINT, saved)
        saved.training = {"model": self.model.state_dict(), "optimiser": self.step.optimiser.state_dict()}
        checkpoint.save(self.folder / LAST_CHECKPOINT, saved)
        rows = ([round(row[name], 5) for name in self.history[0]] for row in self.history)
        write_csv(self.folder / LOG_FILE, [self.history[0], *rows])

    def _seed(self) -> None:
        """Seed torch's global generator, so that dropout and stochastic depth of a resumed run are the same."""
        rank_seeds = (0, self.context.rank) if self.context.rank else ()  # processes must not drop the same units
        torch.manual_seed(seeded_generator(self.config.train.seed, self.epoch, *rank_seeds).initial_seed())

    def _train(self, progress: Progress) -> float:
        """Train one epoch. Return its mean loss."""
        description = f"epoch {self.epoch + 1}/{self.config.train.epochs}"
        batches = progress(self.train.epoch(self.epoch), self.train.photos, description)
        total = self.train_steps(batches, self.epoch * self.epoch_steps)
        return float(self.context.all_reduce(total)) / self.epoch_steps


def best_epoch(history: list[dict[str, float]], facts: dict[str, Any]) -> int:
    """Return the best epoch, from 1, whose weights are kept; 0 if there is none yet."""
    candidates = [row for row in history if row["epoch"] >= facts.get(KEPT_FROM_FACT, 1)]
    best = min(candidates, key=lambda row: (-row["val_accuracy"], row["val_rmse"]), default=None)
    return int(best["epoch"]) if best else 0
