"""`fit`: photos and a configuration → a folder with checkpoints and a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from binwatch.counts import names_of
from binwatch.text import many
from trainer.config import Config, ModelConfig
from trainer.data import index, source
from trainer.data.augment import augments_on_device
from trainer.data.dataset import DataSet, check_jpeg_quality
from trainer.data.loader import Batch, Loader
from trainer.data.loading import follow, read_data, warn_about_absent_classes
from trainer.data.photo_loader import PhotoLoader
from trainer.data.sampler import MIN_BATCH_SIZE
from trainer.data.split import Split
from trainer.disk import make_folder
from trainer.display import Display
from trainer.distributed import devices
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext, from_environment
from trainer.errors import CheckpointError, ConfigError, DataError
from trainer.models import build
from trainer.models.counter import Counter
from trainer.models.weights import check_frozen_weights, load_initial_weights
from trainer.train import checkpoint, curves, distillation
from trainer.train.checkpoint import Checkpoint
from trainer.train.distillation import Teachers
from trainer.train.features import FeatureCache, FeatureLoader
from trainer.train.loop import KEPT_FROM_FACT, TrainingRun, best_epoch
from trainer.train.losses import class_weights
from trainer.train.network import check_compiler
from trainer.train.run_files import (
    BEST_CHECKPOINT,
    CURVES_FILE,
    FEATURES_FOLDER,
    LAST_CHECKPOINT,
    TENSORBOARD_FOLDER,
    check_new,
)

Network = tuple[Counter, list[str]]
"""A network, and the names of its pretrained weights."""
PROCESSES_FACT = "processes"
"""Fact of a run: its number of processes."""


def fit(
    config: Config,
    folder: Path,
    display: Display,
    *,
    saved: Checkpoint | None = None,
    cache: Path | None = None,
    after: Callable[[dict[str, float]], None] = lambda _: None,
    context: DistributedContext = SINGLE_PROCESS,
) -> Path:
    """Train until the last epoch, or until train.patience ends the run; returns the path of the best checkpoint.

    `saved` is the checkpoint to continue (see `load_run`). `cache` is the folder for features, which several runs may
    share; by default it is in `folder`. `after` is called with each epoch's row of the log, and may end the run by an
    exception. If the run has several processes (`context`), each calls this, and the main one writes.
    """
    if context is SINGLE_PROCESS and (size := from_environment().world_size) > 1:
        raise ConfigError(f"torchrun started {size} processes, and this command runs in one; fit can run in several")
    if saved is None and context.is_main:
        create_run_folder(folder)
    if saved:
        restore_best(saved, folder, display, context)
    if saved and saved.epoch >= config.train.epochs:  # before any photo is read
        display.say(f"{many(saved.epoch, 'epoch is', 'epochs are')} done already; a larger --epochs continues the run")
        _draw(saved.history, folder, context)
        return folder / BEST_CHECKPOINT
    config = config.model_copy(update={"train": devices.resolve(config.train, display, context)})
    devices.set_up(config.train, context)
    check_compiler(config.train)
    if context.is_main:  # so that missing photos or labels are reported before weights are downloaded
        source.check_exists(config.data.photos)
        index.check_exists(config.data)
    check_jpeg_quality(config.data)
    network = create_network(config.model)  # so that wrong weights and teachers are reported before photos are decoded
    if config.model.freeze and config.model.weights == "none":
        frozen = network[0].frozen_units
        display.warn(f"{frozen[0]} to {frozen[-1]} are frozen with random weights (model.weights=none)")
    if saved:  # the features of frozen layers must be those of the run, even if the file of weights has changed
        network[0].load_state_dict(saved.training["model"])
    teachers = load_teachers(config, context, saved)
    data = read_data(config.data, display, context)
    warn_about_absent_classes(config.data, data, display)
    run = create_run(config, data, folder, cache or folder / FEATURES_FOLDER, display, context, network, teachers)
    del teachers  # their outputs are computed; this frees their memory
    if saved:
        resume_run(run, saved, display)
        display.say(f"resumed after epoch {run.epoch}")
    board = (
        curves.TensorBoardWriter(folder / TENSORBOARD_FOLDER, run.history)
        if config.train.tensorboard and context.is_main
        else None
    )
    while not run.finished():
        row = run.run_epoch(lambda batches, photos, what: follow(display, batches, photos, what))
        display.say(_line(row, best=run.best_epoch() == run.epoch))
        if board:
            board.add(row)
        after(row)
    if board:
        board.close()
    _draw(run.history, folder, context)
    return folder / BEST_CHECKPOINT


def _draw(history: list[dict[str, float]], folder: Path, context: DistributedContext) -> None:
    if context.is_main:
        curves.plot_curves(history, folder / CURVES_FILE)


def create_run_folder(folder: Path) -> None:
    """Make the folder of a new run. Raises CheckpointError if it has a run already."""
    check_new(folder)
    make_folder(folder)


def load_run(folder: Path, epochs: int | None = None, context: DistributedContext = SINGLE_PROCESS) -> Checkpoint:
    """The run in `folder`, to be continued to a total of `epochs`. A number that differs is noted in its facts."""
    saved = checkpoint.load(folder / LAST_CHECKPOINT, context)
    planned = saved.config.train.epochs
    if epochs is not None and epochs != planned:
        train = saved.config.train.model_copy(update={"epochs": epochs})
        saved.config = saved.config.model_copy(update={"train": train})
        _note_change(saved, f"train.epochs from {planned} to {epochs}")
    return saved


def restore_best(
    saved: Checkpoint, folder: Path, display: Display, context: DistributedContext = SINGLE_PROCESS
) -> None:
    """Restore a missing best.pt from last.pt if that was the best epoch. Otherwise keep the best epoch from now on."""
    if context.broadcast((folder / BEST_CHECKPOINT).is_file()):
        return
    lost = best_epoch(saved.history, saved.facts)
    if lost != saved.epoch:
        display.warn(
            f"{folder / BEST_CHECKPOINT} is missing, and was of epoch {lost}; {LAST_CHECKPOINT} has only epoch {saved.epoch}: the best of"
            " this and the following epochs is kept"
        )
        saved.facts[KEPT_FROM_FACT] = saved.epoch
        _note_change(saved, f"the checkpoint of epoch {lost}, the best, was lost")
    if context.is_main:
        checkpoint.save(folder / BEST_CHECKPOINT, replace(saved, training={}))


def resume_run(run: TrainingRun, saved: Checkpoint, display: Display) -> None:
    """Continue `run` where `saved` stopped. Another index or number of processes is noted in its facts."""
    if saved.classes != run.model.class_mask.classes:
        raise CheckpointError(
            f"{run.folder}: was trained on photos of {names_of(saved.classes)}, and the training photos show"
            f" {names_of(run.model.class_mask.classes)} now; restore the photos and the index, or start a new run"
        )
    if (
        saved.facts.get(distillation.INDEX_FACT, run.facts[distillation.INDEX_FACT])
        != run.facts[distillation.INDEX_FACT]
    ):
        display.warn(
            f"the labels of {run.config.data.labels} have changed since the run began: figures of earlier and later"
            " epochs cannot be compared"
        )
        _note_change(saved, "another index")
        saved.facts[distillation.INDEX_FACT] = run.facts[distillation.INDEX_FACT]
    processes = saved.facts.get(PROCESSES_FACT, 1)
    if processes != run.context.world_size:
        _note_change(saved, f"processes from {processes} to {run.context.world_size}")
        saved.facts[PROCESSES_FACT] = run.context.world_size
    run.resume(saved)


def _note_change(saved: Checkpoint, change: str) -> None:
    saved.facts["changes"] = [*saved.facts.get("changes", []), f"after epoch {saved.epoch}: {change}"]


def create_network(config: ModelConfig) -> Network:
    """A network with its initial weights. Raises ConfigError or WeightsError."""
    model = build(config)
    loaded = load_initial_weights(model.backbone, config.weights)
    check_frozen_weights(model, loaded, config)
    return model, loaded


def load_teachers(
    config: Config, context: DistributedContext = SINGLE_PROCESS, saved: Checkpoint | None = None
) -> Teachers | None:
    """The configured teachers, or None. If the run `saved` is continued, they must be its teachers."""
    if not config.distil.teachers:
        return None
    known = saved.facts.get(distillation.TEACHERS_FACT, []) if saved else None
    return distillation.load(config.distil, config.data, config.model.highest, config.train, context, known)


def create_run(
    config: Config,
    data: DataSet,
    folder: Path,
    cache: Path,
    display: Display,
    context: DistributedContext = SINGLE_PROCESS,
    network: Network | None = None,
    teachers: Teachers | None = None,
) -> TrainingRun:
    """A run that has not begun: the network with its initial weights, and the loaders."""
    model, loaded = network or create_network(config.model)
    model.class_mask.restrict_to(data.classes)
    teachers = teachers or load_teachers(config, context)
    if teachers:
        teachers.check_classes(data.classes)
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    model.to(device=config.train.device, memory_format=layout)  # type: ignore[call-overload]
    train, validation = _loaders(config, model, data, cache, display, context, teachers)
    facts = {
        "data": data.facts(),
        distillation.INDEX_FACT: index.digest(config.data),
        "split": index.split_rule(config.data),
        "weights": Path(config.model.weights).name,
        "loaded": len(loaded),
        "hardware": devices.describe_hardware(config.train),
        PROCESSES_FACT: context.world_size,
    }
    if teachers:
        facts[distillation.TEACHERS_FACT] = teachers.facts()
    weights = class_weights(data[Split.TRAIN].labels, config.train.class_weights)
    return TrainingRun(config, folder, model, loaded, train, validation, facts, weights, context)


def _loaders(
    config: Config,
    model: Counter,
    data: DataSet,
    cache: Path,
    display: Display,
    context: DistributedContext,
    teachers: Teachers | None,
) -> tuple[Loader, Loader]:
    """Loaders of training and validation photos, or of their stored features if layers are frozen."""
    train, validation = data[Split.TRAIN], data[Split.VALIDATION]
    if len(train) < MIN_BATCH_SIZE * context.world_size:
        raise DataError(
            f"{config.data.labels}: {many(len(train), 'training photo is', 'training photos are')} too few for"
            f" {many(context.world_size, 'process', 'processes')}"
        )
    own = validation.shard(context)
    options = config.train
    common: dict[str, Any] = {"batch_size": options.batch_size, "seed": options.seed, "threads": options.readers}
    spread: dict[str, Any] = {"accumulation_steps": options.accumulate, "context": context}

    def progress(batches: Iterator[Batch], photos: int, what: str) -> Iterator[Batch]:
        return follow(display, batches, photos, what)

    on_disk = FeatureCache(cache, config.augment, options, progress)
    if teachers:
        with context.local_main_first():
            spread["teacher_probabilities"] = teachers.probabilities(train, on_disk, mirrored=config.augment.flip)
    if not model.frozen_units:
        deferred = augments_on_device(config.augment, config.train.device)
        return (
            PhotoLoader(train, augment=config.augment, shuffle=True, deferred=deferred, **common, **spread),
            PhotoLoader(own, augment=None, shuffle=False, **common),
        )
    with context.local_main_first():
        views = on_disk.frozen_features(model, train, config.augment.views)
        plain = on_disk.frozen_features(model, validation, views=1)
    part = [view[context.shard(len(validation))] for view in plain]
    flip = config.augment.flip
    return (
        FeatureLoader(views, train, flip=flip, shuffle=True, **common, **spread),
        FeatureLoader(part, own, flip=False, shuffle=False, **common),
    )


def _line(row: dict[str, float], *, best: bool) -> str:
    return (
        f"epoch {row['epoch']:.0f}: loss {row['train_loss']:.4f}, validation accuracy {row['val_accuracy']:.1%},"
        f" RMSE {row['val_rmse']:.3f}, within one {row['val_within_one']:.1%}, loss {row['val_loss']:.4f},"
        f" {row['photos_per_second']:.0f} photos/s{' (best so far)' if best else ''}"
    )
