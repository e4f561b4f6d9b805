"""One epoch after another: train, score on validation photos, checkpoint."""

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
"""Fact of a run whose best.pt was lost: the first epoch from which the best one has been chosen since."""

Follow = Callable[[Iterator[Batch], int, str], Iterator[Batch]]
"""Wraps an epoch's batches with a progress bar: (batches, photos, what)."""


@dataclass
class TrainingRun:
    """A training run in a folder, with everything that changes from step to step. Each process of a run has its own."""

    config: Config
    folder: Path
    model: Counter
    loaded: list[str]
    train: Loader
    validation: Loader
    """Batches of this process's share of the validation photos."""
    facts: dict[str, Any]
    weights: Tensor | None = None
    """The loss's weight for each class, float (classes,), or none."""
    context: DistributedContext = SINGLE_PROCESS
    history: list[dict[str, float]] = field(default_factory=list)
    epoch: int = 0

    def __post_init__(self) -> None:
        config = self.config.train
        loss = Loss(config, self.weights, self.config.distil, self.model.class_mask.classes, self.config.model.highest)
        self.step = TrainStep(
            self.model, self.loaded, loss, config, config.epochs * self.epoch_steps, context=self.context,
            features=self.train.features,
        )  # fmt: skip

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch."""
        return len(self.train) // self.train.accumulation_steps

    @property
    def ema(self) -> Counter:
        """The model with averaged weights, which is scored and stored as the best one."""
        return cast(Counter, self.step.ema.module)

    def resume(self, saved: Checkpoint) -> None:
        """Continue where `saved` stopped, with the same result as without the interruption."""
        self.model.load_state_dict(saved.training["model"])
        self.ema.load_state_dict(saved.weights)
        self.step.optimiser.load_state_dict(saved.training["optimiser"])
        self.history = list(saved.history)
        self.facts = saved.facts
        self.epoch = saved.epoch

    def finished(self) -> bool:
        """Whether all epochs are done, or the last `train.patience` epochs were not better than the best one."""
        patience = self.config.train.patience
        waited = self.epoch - self.best_epoch()
        return self.epoch >= self.config.train.epochs or (patience > 0 and self.epoch > 0 and waited >= patience)

    def best_epoch(self) -> int:
        """Number, from 1, of the epoch with the best validation accuracy (if equal, the smaller RMSE); 0 if none."""
        return best_epoch(self.history, self.facts)

    def run_epoch(self, follow: Follow) -> dict[str, float]:
        """Train one epoch, score it, and write log and checkpoints. Returns the epoch's row of the log."""
        began = time.monotonic()
        self._seed()
        loss = self._train(follow)
        trained = time.monotonic() - began
        # Batch norms have statistics of the photos of their own process. The mean over the processes covers all photos.
        buffers = [*self.model.buffers(), *self.ema.buffers()]
        self.context.all_reduce_mean([buffer for buffer in buffers if buffer.is_floating_point()])
        row = {"epoch": self.epoch + 1, "train_loss": loss, **self.score()}
        self._check_finite(row)
        row |= {"photos_per_second": self.train.photos / trained, "seconds": time.monotonic() - began}
        self.epoch += 1
        # All processes use the main one's figures, so that all stop after the same epoch.
        self.history.append(self.context.broadcast(row))
        if self.context.is_main:
            self.save()
        return self.history[-1]

    def train_steps(self, batches: Iterable[Batch], first: int) -> Tensor:
        """Train on `batches`, from step number `first`. Returns the sum of this process's parts of the losses."""
        self.model.train()
        total = torch.zeros((), device=self.config.train.device)
        accumulation_steps = self.train.accumulation_steps
        ahead = prefetch(batches, self.config.train.device, self.step.timer)
        for step, batch in enumerate(ahead, start=first):
            total += self.step(step, chain([batch], islice(ahead, accumulation_steps - 1)), accumulation_steps)
        return total

    def score(self) -> dict[str, float]:
        """Figures of the averaged weights on the validation photos of all processes."""
        own = torch.from_numpy(predict_logits(self.ema, self.validation, self.config.train))
        logits = class_logits(self.context.all_gather_rows(own))
        labels = classes_of(self.context.all_gather_rows(self.validation.quantities))
        error = (logits.argmax(dim=1) - labels).float()
        # The loss of a class that the model cannot predict would be infinite.
        known = torch.isin(labels, torch.tensor(self.model.class_mask.classes))
        return {
            "val_loss": float(functional.cross_entropy(logits[known], labels[known])),
            "val_accuracy": float((error == 0).float().mean()),
            "val_within_one": float((error.abs() <= 1).float().mean()),
            "val_mae": float(error.abs().mean()),
            "val_rmse": float(error.square().mean().sqrt()),
        }

    def _check_finite(self, row: dict[str, float]) -> None:
        """Weights that are not finite never recover, so the checkpoint of the epoch before is kept."""
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
        learned = self.model.class_mask.classes
        found = Checkpoint(self.config, self.epoch, self.ema.state_dict(), self.history, self.facts, learned)
        if self.best_epoch() == self.epoch:
            checkpoint.save(self.folder / BEST_CHECKPOINT, found)
        found.training = {"model": self.model.state_dict(), "optimiser": self.step.optimiser.state_dict()}
        checkpoint.save(self.folder / LAST_CHECKPOINT, found)
        rows = ([round(row[name], 5) for name in self.history[0]] for row in self.history)
        write_csv(self.folder / LOG_FILE, [self.history[0], *rows])

    def _seed(self) -> None:
        """Seed torch's own generator, which dropout and stochastic depth use, so that a resumed run is the same run."""
        parts = (0, self.context.rank) if self.context.rank else ()  # processes must not drop the same places
        torch.manual_seed(seeded_generator(self.config.train.seed, self.epoch, *parts).initial_seed())

    def _train(self, follow: Follow) -> float:
        """Mean loss of an epoch."""
        what = f"epoch {self.epoch + 1}/{self.config.train.epochs}"
        batches = follow(self.train.epoch(self.epoch), self.train.photos, what)
        total = self.train_steps(batches, self.epoch * self.epoch_steps)
        return float(self.context.all_reduce(total)) / self.epoch_steps


def best_epoch(history: list[dict[str, float]], facts: dict[str, Any]) -> int:
    """Number, from 1, of the best epoch whose weights are kept; 0 if there is none yet."""
    kept = [row for row in history if row["epoch"] >= facts.get(KEPT_FROM_FACT, 1)]
    ranked = sorted(kept, key=lambda row: (-row["val_accuracy"], row["val_rmse"]))
    return int(ranked[0]["epoch"]) if ranked else 0
