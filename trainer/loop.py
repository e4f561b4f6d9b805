"""One epoch after another: train, average, score on validation photos, checkpoint."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from binwatch.counts import MORE
from trainer import checkpoint
from trainer.checkpoint import Checkpoint
from trainer.config import Config
from trainer.data.augment import augment
from trainer.data.batches import Batch, Batches, generator
from trainer.losses import Loss
from trainer.models.counter import Counter
from trainer.optimise import Average, optimiser, set_rates
from trainer.predict import forward, logits_of

LAST = "last.pt"
BEST = "best.pt"
LOG = "epochs.csv"

Follow = Callable[[Iterator[Batch], int, str], Iterator[Batch]]
"""Wraps an epoch's batches with a progress bar: (batches, photos, what)."""


@dataclass
class Run:
    """A training run in a folder: everything that changes from step to step."""

    config: Config
    folder: Path
    model: Counter
    loaded: list[str]
    train: Batches
    validation: Batches
    facts: dict[str, Any]
    weights: torch.Tensor | None = None
    """Per class, float (classes,), or none."""
    history: list[dict[str, float]] = field(default_factory=list)
    epoch: int = 0

    def __post_init__(self) -> None:
        self.loss = Loss(self.config.train, self.weights)
        self.optimiser = optimiser(self.model, self.loaded, self.config.train)
        self.average = Average(self.model, self.config.train.ema)
        if self.config.train.compile:
            self.model.compile()

    def resume(self, saved: Checkpoint) -> None:
        """Continue where `saved` stopped, to the same result as if it had not."""
        self.model.load_state_dict(saved.training["model"])
        self.average.model.load_state_dict(saved.weights)
        self.optimiser.load_state_dict(saved.training["optimiser"])
        self.history = list(saved.history)
        self.facts = saved.facts
        self.epoch = saved.epoch

    def finished(self) -> bool:
        """All epochs done, or too many in a row without a better one."""
        patience = self.config.train.patience
        waited = self.epoch - self.best_epoch()
        return self.epoch >= self.config.train.epochs or (patience > 0 and self.epoch > 0 and waited >= patience)

    def best_epoch(self) -> int:
        """Number, from 1, of the epoch with the best validation accuracy, the smaller RMSE deciding; 0 if none yet."""
        ranked = sorted(self.history, key=lambda row: (-row["val_accuracy"], row["val_rmse"]))
        return int(ranked[0]["epoch"]) if ranked else 0

    def run_epoch(self, follow: Follow) -> dict[str, float]:
        """Train one epoch, score it, and write log and checkpoints. Returns the epoch's row of the log."""
        began = time.monotonic()
        # Dropout and stochastic depth draw from torch's own generator: seeding it per epoch makes resumed runs equal.
        torch.manual_seed(generator(self.config.train.seed, self.epoch).initial_seed())
        loss = self._train(follow)
        trained = time.monotonic() - began
        row = {"epoch": self.epoch + 1, "train_loss": loss, **self._score()}
        row |= {"photos_per_second": self.train.photos / trained, "seconds": time.monotonic() - began}
        self.epoch += 1
        self.history.append(row)
        self._save()
        return row

    def _train(self, follow: Follow) -> float:
        """Mean loss of an epoch."""
        self.model.train()
        total = torch.zeros((), device=self.config.train.device)
        what = f"epoch {self.epoch + 1}/{self.config.train.epochs}"
        count, passes = len(self.train), self.config.train.accumulate
        first = self.epoch * math.ceil(count / passes)
        for index, batch in enumerate(follow(self.train.epoch(self.epoch), self.train.photos, what)):
            together = min(passes, count - index // passes * passes)  # the last step of an epoch may have fewer
            loss = self._loss(batch, index)
            torch.autograd.backward(loss / together)
            total += loss.detach()
            if (index + 1) % passes == 0 or index + 1 == count:
                self._step(first + index // passes)
        return float(total) / count

    def _loss(self, batch: Batch, index: int) -> torch.Tensor:
        train = self.config.train
        if not self.train.features and augments_on_device(self.config):
            changed = augment(
                batch.inputs.to(train.device, non_blocking=True),
                self.config.augment,
                generator(train.seed, self.epoch, index),
            )
            batch = Batch(changed, batch.quantities)
        logits = forward(self.model, batch, train, features=self.train.features)
        return self.loss(logits, batch.quantities.to(logits.device))

    def _step(self, step: int) -> None:
        config = self.config.train
        set_rates(self.optimiser, config, step, config.epochs * math.ceil(len(self.train) / config.accumulate))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update(self.model, step)

    def _score(self) -> dict[str, float]:
        """Figures of the averaged weights on the validation photos."""
        logits = torch.from_numpy(logits_of(self.average.model, self.validation, self.config.train))
        quantities = torch.cat([batch.quantities for batch in self.validation.epoch(0)])
        labels = quantities.clamp(max=MORE)
        error = (logits.argmax(dim=1) - labels).float()
        return {
            "val_loss": float(functional.cross_entropy(logits, labels)),
            "val_accuracy": float((error == 0).float().mean()),
            "val_within_one": float((error.abs() <= 1).float().mean()),
            "val_mae": float(error.abs().mean()),
            "val_rmse": float(error.square().mean().sqrt()),
        }

    def _save(self) -> None:
        self.facts["seconds"] = sum(row["seconds"] for row in self.history)
        found = Checkpoint(self.config, self.epoch, self.average.model.state_dict(), self.history, self.facts)
        if self.best_epoch() == self.epoch:
            checkpoint.save(self.folder / BEST, found)
        found.training = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        checkpoint.save(self.folder / LAST, found)
        write_log(self.folder / LOG, self.history)


def augments_on_device(config: Config) -> bool:
    """Whether the training loop changes photos at random, rather than the threads that read them."""
    where = config.augment.where
    return where == "device" or (where == "auto" and torch.device(config.train.device).type != "cpu")


def write_log(file: Path, history: list[dict[str, float]]) -> None:
    """One line per epoch."""
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows({name: round(value, 5) for name, value in row.items()} for row in history)
