"""`fit`: photos and a configuration → a folder with checkpoints and a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from trainer import checkpoint, curves, devices, features
from trainer.checkpoint import Checkpoint
from trainer.config import Config, DataConfig
from trainer.data.batches import Batch, Batches, PhotoBatches
from trainer.data.dataset import DataSet, check_quality, load_dataset
from trainer.data.split import Split
from trainer.display import Display
from trainer.errors import CheckpointError
from trainer.loop import BEST, LAST, Run, augments_on_device
from trainer.losses import class_weights
from trainer.models import build
from trainer.models.counter import Counter
from trainer.models.weights import start

FEATURES = "features"
"""Folder, within a run's folder, of what the frozen layers see."""
READERS = 4
"""Threads that decode photos for the network."""


def fit(
    config: Config,
    folder: Path,
    display: Display,
    *,
    saved: Checkpoint | None = None,
    cache: Path | None = None,
    after: Callable[[dict[str, float]], None] = lambda _: None,
) -> Path:
    """Train until the last epoch or until patience runs out; returns the best checkpoint's path.

    `saved` is the checkpoint to continue (see `saved_run`). `cache` is where features are kept (several runs may share
    it); by default within `folder`. `after` is told each epoch's row of the log, and may end the run by raising.
    """
    if saved is None:
        new_folder(folder)
    devices.prepare(config.train)
    check_quality(config.data)
    data = read_data(config.data, display)
    run = _run(config, data, folder, cache or folder / FEATURES, display)
    if saved:
        run.resume(saved)
        display.say(f"resumed after epoch {run.epoch}")
    board = _board(run, folder) if config.train.tensorboard else None
    while not run.finished():
        row = run.run_epoch(lambda batches, photos, what: follow(display, batches, photos, what))
        display.say(_line(row, best=run.best_epoch() == run.epoch))
        if board:
            board.add(row)
        after(row)
    if board:
        board.close()
    curves.draw(run.history, folder / curves.CURVES)
    return folder / BEST


def _board(run: Run, folder: Path) -> curves.Board:
    board = curves.Board(folder / curves.TENSORBOARD)
    for row in run.history:
        board.add(row)
    return board


def read_data(config: DataConfig, display: Display) -> DataSet:
    """The data set, with each photo decoded once to know that it can be."""
    data = load_dataset(config, lambda keys: display.follow(keys, len(keys), "checking photos"))
    say_left_out(config, data.missing, data.unreadable, display)
    counts = ", ".join(f"{len(data[split])} {split}" for split in Split)
    display.say(f"{counts} photos")
    return data


def say_left_out(config: DataConfig, missing: Sequence[str], unreadable: Mapping[str, str], display: Display) -> None:
    """Name what the index lists and cannot be used."""
    for key, reason in unreadable.items():
        display.say(f"left out: {key}: {reason}")
    if missing:
        display.say(f"left out: {len(missing)} photos that the index names and {config.photos} does not hold")


def follow(display: Display, batches: Iterator[Batch], photos: int, what: str) -> Iterator[Batch]:
    """Batches with a progress bar."""
    return display.follow(batches, photos, what, lambda batch: len(batch.quantities))


def new_folder(folder: Path) -> None:
    """Make the folder of a new run. Raises CheckpointError if it holds one already."""
    if (folder / LAST).exists():
        raise CheckpointError(f"{folder}: holds a run already; continue it with --resume or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)


def saved_run(folder: Path, epochs: int | None = None) -> Checkpoint:
    """The run in `folder`, to be continued to `epochs` in all; if that is not what was planned, its facts say so."""
    saved = checkpoint.load(folder / LAST)
    planned = saved.config.train.epochs
    if epochs is not None and epochs != planned:
        train = saved.config.train.model_copy(update={"epochs": epochs})
        saved.config = saved.config.model_copy(update={"train": train})
        change = f"after epoch {saved.epoch}: train.epochs from {planned} to {epochs}"
        saved.facts["changes"] = [*saved.facts.get("changes", []), change]
    return saved


def _run(config: Config, data: DataSet, folder: Path, cache: Path, display: Display) -> Run:
    model = build(config.model)
    loaded = start(model.backbone, config.model.weights)
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    model.to(device=config.train.device, memory_format=layout)  # type: ignore[call-overload]
    train, validation = _batches(config, model, data, cache, display)
    facts = {
        "data": data.facts(),
        "weights": Path(config.model.weights).name,
        "loaded": len(loaded),
        "hardware": devices.hardware(config.train),
    }
    weights = class_weights(data[Split.TRAIN].labels, config.train.class_weights)
    return Run(config, folder, model, loaded, train, validation, facts, weights)


def _batches(config: Config, model: Counter, data: DataSet, cache: Path, display: Display) -> tuple[Batches, Batches]:
    """Training and validation batches: of cached features if a part of the network is frozen, else of photos."""
    size, seed = config.train.batch_size, config.train.seed
    train, validation = data[Split.TRAIN], data[Split.VALIDATION]
    by_readers = None if augments_on_device(config) else config.augment
    if not model.frozen:
        return (
            PhotoBatches(train, size, seed=seed, augment=by_readers, shuffle=True, threads=READERS),
            PhotoBatches(validation, size, seed=seed, augment=None, shuffle=False, threads=READERS),
        )

    def progress(batches: Iterator[Batch], photos: int, what: str) -> Iterator[Batch]:
        return follow(display, batches, photos, what)

    views = features.compute(model, train, config, config.augment.views, cache, progress)
    plain = features.compute(model, validation, config, 1, cache, progress)
    return (
        features.FeatureBatches(views, train, size, seed=seed, flip=config.augment.flip, shuffle=True),
        features.FeatureBatches(plain, validation, size, seed=seed, flip=False, shuffle=False),
    )


def _line(row: dict[str, float], *, best: bool) -> str:
    return (
        f"epoch {row['epoch']:.0f}: loss {row['train_loss']:.4f}, validation accuracy {row['val_accuracy']:.1%},"
        f" RMSE {row['val_rmse']:.3f}, within one {row['val_within_one']:.1%}, loss {row['val_loss']:.4f},"
        f" {row['photos_per_second']:.0f} photos/s{' (best so far)' if best else ''}"
    )
