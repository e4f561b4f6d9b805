"""`fit`: photos and a configuration → a folder with checkpoints and a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from binwatch.counts import names_of
from trainer.config import Config, ModelConfig
from trainer.data import index, source
from trainer.data.batches import PhotoBatches
from trainer.data.dataset import DataSet, check_quality
from trainer.data.epochs import FEWEST, Batch, Batches
from trainer.data.loading import follow, read_data, warn_of_absent_classes
from trainer.data.split import Split
from trainer.disk import make_folder
from trainer.display import Display
from trainer.distributed import devices
from trainer.distributed.context import ALONE, Ranks, of_environment
from trainer.errors import CheckpointError, ConfigError, DataError
from trainer.models import build
from trainer.models.counter import Counter
from trainer.models.weights import check_frozen, start
from trainer.train import checkpoint, curves, distillation, features
from trainer.train.checkpoint import Checkpoint
from trainer.train.distillation import Teachers
from trainer.train.loop import KEPT_FROM, Run, augments_on_device, best_epoch
from trainer.train.losses import class_weights
from trainer.train.network import check_compiler
from trainer.train.run_files import BEST, CURVES, FEATURES, LAST, TENSORBOARD, check_new

Network = tuple[Counter, list[str]]
"""A network, and the names of the weights that it starts from."""
PROCESSES = "processes"
"""Fact of a run: in how many processes it trained."""


def fit(
    config: Config,
    folder: Path,
    display: Display,
    *,
    saved: Checkpoint | None = None,
    cache: Path | None = None,
    after: Callable[[dict[str, float]], None] = lambda _: None,
    ranks: Ranks = ALONE,
) -> Path:
    """Train until the last epoch or until patience runs out; returns the best checkpoint's path.

    `saved` is the checkpoint to continue (see `saved_run`). `cache` is where features are kept (several runs may share
    it); by default within `folder`. `after` is told each epoch's row of the log, and may end the run by raising. If the
    run has several processes (`ranks`), each calls this; the leading one writes.
    """
    if ranks is ALONE and (size := of_environment().size) > 1:
        raise ConfigError(f"torchrun started {size} processes, and this command works in one; fit works in several")
    if saved is None and ranks.lead:
        new_folder(folder)
    if saved:
        restore_best(saved, folder, display, ranks)
    if saved and saved.epoch >= config.train.epochs:  # known without a look at any photo
        display.say(f"all {saved.epoch} epochs are done; --epochs continues to more")
        _draw(saved.history, folder, ranks)
        return folder / BEST
    config = devices.chosen(config, display, ranks)
    devices.prepare(config.train, ranks)
    check_compiler(config.train)
    if ranks.lead:  # no photos or no index: known before weights are downloaded
        source.check_there(config.data.photos)
        index.check_there(config.data)
    check_quality(config.data)
    network = new_network(config.model)  # wrong weights and teachers are known before each photo is decoded
    if config.model.freeze and config.model.weights == "none":
        frozen = network[0].frozen
        display.warn(f"{frozen[0]} to {frozen[-1]} are frozen as they begin, at random (model.weights=none)")
    if saved:  # the frozen layers' features are theirs, though the file of weights be another by now
        network[0].load_state_dict(saved.training["model"])
    taught_by = distillation.load(config, ranks, saved)
    data = read_data(config.data, display, ranks)
    warn_of_absent_classes(config.data, data, display)
    run = make_run(config, data, folder, cache or folder / FEATURES, display, ranks, network, taught_by)
    del taught_by  # they have been asked
    if saved:
        continue_run(run, saved, display)
        display.say(f"resumed after epoch {run.epoch}")
    board = _board(run, folder) if config.train.tensorboard and ranks.lead else None
    while not run.finished():
        row = run.run_epoch(lambda batches, photos, what: follow(display, batches, photos, what))
        display.say(_line(row, best=run.best_epoch() == run.epoch))
        if board:
            board.add(row)
        after(row)
    if board:
        board.close()
    _draw(run.history, folder, ranks)
    return folder / BEST


def _draw(history: list[dict[str, float]], folder: Path, ranks: Ranks) -> None:
    if ranks.lead:
        curves.draw(history, folder / CURVES)


def _board(run: Run, folder: Path) -> curves.Board:
    board = curves.Board(folder / TENSORBOARD)
    for row in run.history:
        board.add(row)
    return board


def new_folder(folder: Path) -> None:
    """Make the folder of a new run. Raises CheckpointError if it holds one already."""
    check_new(folder)
    make_folder(folder)


def saved_run(folder: Path, epochs: int | None = None, ranks: Ranks = ALONE) -> Checkpoint:
    """The run in `folder`, to be continued to `epochs` in all; if that is not what was planned, its facts say so."""
    saved = checkpoint.load(folder / LAST, ranks)
    planned = saved.config.train.epochs
    if epochs is not None and epochs != planned:
        train = saved.config.train.model_copy(update={"epochs": epochs})
        saved.config = saved.config.model_copy(update={"train": train})
        _note_change(saved, f"train.epochs from {planned} to {epochs}")
    return saved


def restore_best(saved: Checkpoint, folder: Path, display: Display, ranks: Ranks = ALONE) -> None:
    """Write a best.pt that is missing from last.pt, if that is what was lost; else the best from here on is kept."""
    if ranks.of_lead((folder / BEST).is_file()):
        return
    lost = best_epoch(saved.history, saved.facts)
    if lost != saved.epoch:
        display.warn(
            f"{folder / BEST} is missing, and was of epoch {lost}; {LAST} has epoch {saved.epoch} only: the"
            " best of that and what follows is kept"
        )
        saved.facts[KEPT_FROM] = saved.epoch
        _note_change(saved, f"the checkpoint of epoch {lost}, the best, was lost")
    if ranks.lead:
        checkpoint.save(folder / BEST, replace(saved, training={}))


def continue_run(run: Run, saved: Checkpoint, display: Display) -> None:
    """Put `run` where `saved` stopped. With other photos or processes its steps differ, and its facts say so."""
    if saved.classes != run.model.answers.classes:
        raise CheckpointError(
            f"{run.folder}: learned to answer {names_of(saved.classes)}, and the training photos show"
            f" {names_of(run.model.answers.classes)} now; restore the photos and the index, or start a new run"
        )
    if saved.facts.get(distillation.INDEX, run.facts[distillation.INDEX]) != run.facts[distillation.INDEX]:
        display.warn(
            f"the labels of {run.config.data.labels} are others than when the run began: figures of epochs"
            " before and after cannot be compared"
        )
        _note_change(saved, "another index")
        saved.facts[distillation.INDEX] = run.facts[distillation.INDEX]
    processes = saved.facts.get(PROCESSES, 1)
    if processes != run.ranks.size:
        _note_change(saved, f"processes from {processes} to {run.ranks.size}")
        saved.facts[PROCESSES] = run.ranks.size
    run.resume(saved)


def _note_change(saved: Checkpoint, change: str) -> None:
    saved.facts["changes"] = [*saved.facts.get("changes", []), f"after epoch {saved.epoch}: {change}"]


def new_network(config: ModelConfig) -> Network:
    """A network with its starting weights. Raises ConfigError or WeightsError."""
    model = build(config)
    loaded = start(model.backbone, config.weights)
    check_frozen(model, loaded, config)
    return model, loaded


def make_run(
    config: Config,
    data: DataSet,
    folder: Path,
    cache: Path,
    display: Display,
    ranks: Ranks = ALONE,
    network: Network | None = None,
    taught_by: Teachers | None = None,
) -> Run:
    """A run that has not begun: the network with its starting weights, and its batches."""
    model, loaded = network or new_network(config.model)
    model.answers.limit(data.classes)
    taught_by = taught_by or distillation.load(config, ranks)
    if taught_by:
        taught_by.check_answers(data.classes)
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    model.to(device=config.train.device, memory_format=layout)  # type: ignore[call-overload]
    train, validation = _batches(config, model, data, cache, display, ranks, taught_by)
    facts = {
        "data": data.facts(),
        distillation.INDEX: index.digest(config.data),
        "split": index.split_rule(config.data),
        "weights": Path(config.model.weights).name,
        "loaded": len(loaded),
        "hardware": devices.hardware(config.train),
        PROCESSES: ranks.size,
    }
    if taught_by:
        facts[distillation.TEACHERS] = taught_by.facts()
    weights = class_weights(data[Split.TRAIN].labels, config.train.class_weights)
    return Run(config, folder, model, loaded, train, validation, facts, weights, ranks)


def _batches(
    config: Config,
    model: Counter,
    data: DataSet,
    cache: Path,
    display: Display,
    ranks: Ranks,
    taught_by: Teachers | None,
) -> tuple[Batches, Batches]:
    """Training and validation batches: of cached features if a part of the network is frozen, else of photos."""
    train, validation = data[Split.TRAIN], data[Split.VALIDATION]
    if len(train) < FEWEST * ranks.size:
        raise DataError(f"{config.data.labels}: {len(train)} training photos are too few for {ranks.size} processes")
    own = validation.share(ranks)
    options = config.train
    common: dict[str, Any] = {"batch_size": options.batch_size, "seed": options.seed, "threads": options.readers}
    spread: dict[str, Any] = {"passes": options.accumulate, "ranks": ranks}

    def progress(batches: Iterator[Batch], photos: int, what: str) -> Iterator[Batch]:
        return follow(display, batches, photos, what)

    with ranks.first_here():
        spread["teacher_probabilities"] = taught_by.probabilities(train, cache, progress) if taught_by else None
    if not model.frozen:
        later = augments_on_device(config)
        return (
            PhotoBatches(train, augment=config.augment, shuffle=True, later=later, **common, **spread),
            PhotoBatches(own, augment=None, shuffle=False, **common),
        )
    with ranks.first_here():
        views = features.compute(model, train, config, config.augment.views, cache, progress)
        plain = features.compute(model, validation, config, 1, cache, progress)
    part = [view[ranks.share(len(validation))] for view in plain]
    flip = config.augment.flip
    return (
        features.FeatureBatches(views, train, flip=flip, shuffle=True, **common, **spread),
        features.FeatureBatches(part, own, flip=False, shuffle=False, **common),
    )


def _line(row: dict[str, float], *, best: bool) -> str:
    return (
        f"epoch {row['epoch']:.0f}: loss {row['train_loss']:.4f}, validation accuracy {row['val_accuracy']:.1%},"
        f" RMSE {row['val_rmse']:.3f}, within one {row['val_within_one']:.1%}, loss {row['val_loss']:.4f},"
        f" {row['photos_per_second']:.0f} photos/s{' (best so far)' if best else ''}"
    )
