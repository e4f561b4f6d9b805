"""The script that torchrun starts in the processes of tests/trainer/test_distributed.py.

torchrun_script.py fits PHOTOS INDEX TEACHER FOLDER: several runs, one after the other
torchrun_script.py command ARGUMENTS: `python -m trainer ARGUMENTS`; with BREAK=1 process 1 loses its photos
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from torch import nn

from binwatch.errors import PhotoError, Reason
from trainer import __main__ as cli
from trainer.config import Config, ModelConfig, read_config
from trainer.data.dataset import PhotoSet
from trainer.data.photo_loader import PhotoLoader
from trainer.display import Display, silent_display
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext, process_group
from trainer.models.counter import Counter
from trainer.train import fit as fitting
from trainer.train.fit import fit, load_run

PROCESSES = 2
EXACT: dict[str, Any] = {
    "model.dropout": 0.0, "train.epochs": 2, "train.class_weights": "balanced",
    "train.optimiser": "sgd", "train.schedule": "one_cycle", "augment.where": "device", "train.ema": 0.9,
}  # fmt: skip
"""Options of a run that depends only on the photos of each step: no dropout (and no batch norm in the network)."""
SINGLE_32 = EXACT | {"train.batch_size": 32}
SHARDED_32 = EXACT | {"train.batch_size": 8, "train.accumulate": 2}
"""The same steps of 32 photos as 2 processes × 2 micro-batches × 8 photos."""
NOISY: dict[str, Any] = {"train.batch_size": 16, "train.epochs": 2, "train.patience": 5, "model.dropout": 0.5}
"""Options of a run with everything that differs between processes, such as dropout."""


FROZEN = {"model.freeze": "first", "train.epochs": 1, "augment.views": 2}


class Tiny(nn.Module):
    """A network of two convolutions, with or without a batch norm."""

    channels = 8
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 7, stride=8), nn.BatchNorm2d(4) if norm else nn.Identity())
        self.second = nn.Sequential(nn.ReLU(), nn.Conv2d(4, self.channels, 3, stride=3))

    def units(self) -> dict[str, nn.Module]:
        return {"first": self.first, "second": self.second}


def use_tiny(*, norm: bool) -> None:
    def build(config: ModelConfig) -> Counter:
        return Counter(Tiny(norm), config)

    fitting.build = build  # type: ignore[attr-defined]


class Interrupted(Exception):
    """Simulated interruption after the first epoch."""


def interrupt(row: dict[str, float]) -> None:
    if row["epoch"] == 1:
        raise Interrupted


def config_of(photos: str, index: str, changes: dict[str, Any]) -> Config:
    fixed = {"data.photos": photos, "data.index": index, "model.weights": "none", "train.threads": 1}
    return read_config(None, fixed | changes)


def fits(photos: str, index: str, teacher: str, folder: Path, context: DistributedContext) -> None:
    distillation = {"distil.teachers": [teacher]}
    use_tiny(norm=False)
    fit(config_of(photos, index, SHARDED_32 | distillation), folder / "spread", silent_display(), context=context)
    use_tiny(norm=True)
    fit(config_of(photos, index, NOISY | FROZEN | distillation), folder / "frozen", silent_display(), context=context)
    config = config_of(photos, index, NOISY)
    fit(config, folder / "one", silent_display(), context=context)
    try:
        fit(config, folder / "two", silent_display(), context=context, on_epoch_end=interrupt)
    except Interrupted:
        saved = load_run(folder / "two", context=context)
        fit(
            saved.config,
            folder / "two",
            Display() if context.is_main else silent_display(),
            saved=saved,
            context=context,
        )


def lose_photos() -> None:
    """Make photos unreadable from the first batch on, after the checks at the start of the run."""

    def fail(self: PhotoSet, key: str) -> None:
        raise PhotoError(Reason.EMPTY, "the file is empty")

    def inputs(self: PhotoLoader, *arguments: Any) -> Any:
        PhotoSet.decode = fail  # type: ignore[assignment]
        return before(self, *arguments)

    before = PhotoLoader.inputs
    PhotoLoader.inputs = inputs  # type: ignore[method-assign]


def main() -> None:
    command, *arguments = sys.argv[1:]
    if command == "fits":
        with process_group() as context:
            assert context is not SINGLE_PROCESS
            photos, index, teacher, folder = arguments
            fits(photos, index, teacher, Path(folder), context)
        return
    if os.environ.get("BREAK") and os.environ["RANK"] == "1":
        lose_photos()
    sys.argv[1:] = arguments
    cli.main()


if __name__ == "__main__":
    main()
