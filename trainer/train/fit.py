"""The command `fit`: a training run, which writes checkpoints and a log into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from binwatch.counts import column_names
from binwatch.text import count_noun
from trainer.config import Config, ModelConfig
from trainer.data import index, source
from trainer.data.augment import augments_on_device
from trainer.data.dataset import DataSet, check_jpeg_quality
from trainer.data.loader import Batch, Loader
from trainer.data.loading import read_data, track, warn_about_absent_classes
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

InitialNetwork = tuple[Counter, list[str]]
"""A network with its initial weights, and the names of those that are pretrained."""
PROCESSES_FACT = "processes"
"""Key of a run's number of processes in its facts."""


def fit(
    config: Config,
    folder: Path,
    display: Display,
    *,
    saved: Checkpoint | None = None,
    cache: Path | None = None,
    on_epoch_end: Callable[[dict[str, float]], None] = lambda _: None,
    context: DistributedContext = SINGLE_PROCESS,
) -> Path:
    """Train until the last epoch, or until train.patience ends the run. Return the path of the best checkpoint.

    `saved` is the checkpoint to resume (see `load_run`). `cache` is the folder of stored features, which several runs
    may share; by default it is in `folder`. `on_epoch_end` is called with each epoch's row of the log, and may end the
    run by raising an exception. With several processes (`context`), each calls `fit`, and only the main one writes
    files.
    """
    if context is SINGLE_PROCESS and (size := from_environment().world_size) > 1:
        raise ConfigError(f"torchrun started {size} processes, and this command runs in one; fit can run in several")
    if saved is None and context.is_main:
        create_run_folder(folder)
    if saved:
        restore_best(saved, folder, display, context)
    if saved and saved.epoch >= config.train.epochs:  # before photos are read
        display.say(
            f"{count_noun(saved.epoch, 'epoch is', 'epochs are')} done already; a larger --epochs continues the run"
        )
        _plot_curves(saved.history, folder, context)
        return folder / BEST_CHECKPOINT
    config = config.model_copy(update={"train": devices.resolve(config.train, display, context)})
    devices.set_up(config.train, context)
    check_compiler(config.train)
    if context.is_main:  # report missing photos or labels before weights are downloaded
        source.check_exists(config.data.photos)
        index.check_exists(config.data)
    check_jpeg_quality(config.data)
    network = create_network(config.model)  # report wrong weights and teachers before photos are decoded
    if config.model.freeze and config.model.weights == "none":
        frozen = network[0].frozen_units
        display.warn(f"{frozen[0]} to {frozen[-1]} are frozen with random weights (model.weights=none)")
    if saved:  # frozen layers must be those of the run, even if the weights file has changed
        network[0].load_state_dict(saved.training["model"])
    teachers = load_teachers(config, context, saved)
    data = read_data(config.data, display, context)
    warn_about_absent_classes(config.data, data, display)
    run = create_run(config, data, folder, cache or folder / FEATURES_FOLDER, display, context, network, teachers)
    del teachers  # their outputs have been computed; this frees their memory
    if saved:
        resume_run(run, saved, display)
        display.say(f"resumed after epoch {run.epoch}")
    writer = None
    if config.train.tensorboard and context.is_main:
        writer = curves.TensorBoardWriter(folder / TENSORBOARD_FOLDER, run.history)
    while not run.finished():
        row = run.run_epoch(lambda batches, photos, description: track(display, batches, photos, description))
        display.say(_epoch_summary(row, best=run.best_epoch() == run.epoch))
        if writer:
            writer.add(row)
        on_epoch_end(row)
    if writer:
        writer.close()
    _plot_curves(run.history, folder, context)
    return folder / BEST_CHECKPOINT


def _plot_curves(history: list[dict[str, float]], folder: Path, context: DistributedContext) -> None:
    if context.is_main:
        curves.plot_curves(history, folder / CURVES_FILE)


def create_run_folder(folder: Path) -> None:
    """Create the folder of a new run. Raises CheckpointError if it contains a run."""
    check_new(folder)
    make_folder(folder)


def load_run(folder: Path, epochs: int | None = None, context: DistributedContext = SINGLE_PROCESS) -> Checkpoint:
    """Load the last checkpoint of the run in `folder`, to be resumed for a total of `epochs`.

    A number of epochs that differs from the run's is recorded in its facts.
    """
    saved = checkpoint.load(folder / LAST_CHECKPOINT, context)
    planned = saved.config.train.epochs
    if epochs is not None and epochs != planned:
        train = saved.config.train.model_copy(update={"epochs": epochs})
        saved.config = saved.config.model_copy(update={"train": train})
        _record_change(saved, f"train.epochs from {planned} to {epochs}")
    return saved


def restore_best(
    saved: Checkpoint, folder: Path, display: Display, context: DistributedContext = SINGLE_PROCESS
) -> None:
    """Replace a missing best.pt by last.pt. If another epoch was the best one, warn and record the change."""
    if context.broadcast((folder / BEST_CHECKPOINT).is_file()):
        return
    lost_epoch = best_epoch(saved.history, saved.facts)
    if lost_epoch != saved.epoch:
        display.warn(
            f"{folder / BEST_CHECKPOINT} is missing, and was of epoch {lost_epoch}; {LAST_CHECKPOINT} has only epoch"
            f" {saved.epoch}: the best of this and the following epochs is kept"
        )
        saved.facts[KEPT_FROM_FACT] = saved.epoch
        _record_change(saved, f"the checkpoint of epoch {lost_epoch}, the best, was lost")
    if context.is_main:
        checkpoint.save(folder / BEST_CHECKPOINT, replace(saved, training={}))


def resume_run(run: TrainingRun, saved: Checkpoint, display: Display) -> None:
    """Continue `run` where `saved` stopped. A changed index or number of processes is recorded in its facts.

    Raises CheckpointError if the training photos show other classes.
    """
    if saved.classes != run.model.class_mask.classes:
        raise CheckpointError(
            f"{run.folder}: was trained on photos of {column_names(saved.classes)}, and the training photos show"
            f" {column_names(run.model.class_mask.classes)} now; restore the photos and the index, or start a new run"
        )
    if (
        saved.facts.get(distillation.INDEX_FACT, run.facts[distillation.INDEX_FACT])
        != run.facts[distillation.INDEX_FACT]
    ):
        display.warn(
            f"the labels of {run.config.data.labels} have changed since the run began: figures of earlier and later"
            " epochs cannot be compared"
        )
        _record_change(saved, "another index")
        saved.facts[distillation.INDEX_FACT] = run.facts[distillation.INDEX_FACT]
    processes = saved.facts.get(PROCESSES_FACT, 1)
    if processes != run.context.world_size:
        _record_change(saved, f"processes from {processes} to {run.context.world_size}")
        saved.facts[PROCESSES_FACT] = run.context.world_size
    run.resume(saved)


def _record_change(saved: Checkpoint, change: str) -> None:
    saved.facts["changes"] = [*saved.facts.get("changes", []), f"after epoch {saved.epoch}: {change}"]


def create_network(config: ModelConfig) -> InitialNetwork:
    """Build a network and load its initial weights. Raises ConfigError or WeightsError."""
    model = build(config)
    pretrained = load_initial_weights(model.backbone, config.weights)
    check_frozen_weights(model, pretrained, config)
    return model, pretrained


def load_teachers(
    config: Config, context: DistributedContext = SINGLE_PROCESS, saved: Checkpoint | None = None
) -> Teachers | None:
    """Load the configured teachers, or return None. If the run `saved` is resumed, they must be its teachers."""
    if not config.distil.teachers:
        return None
    saved_facts = saved.facts.get(distillation.TEACHERS_FACT, []) if saved else None
    return distillation.load(config.distil, config.data, config.model.highest, config.train, context, saved_facts)


def create_run(
    config: Config,
    data: DataSet,
    folder: Path,
    cache: Path,
    display: Display,
    context: DistributedContext = SINGLE_PROCESS,
    network: InitialNetwork | None = None,
    teachers: Teachers | None = None,
) -> TrainingRun:
    """Create a run before its first epoch: the network with its initial weights, and the loaders."""
    model, pretrained = network or create_network(config.model)
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
        "loaded": len(pretrained),
        "hardware": devices.describe_hardware(config.train),
        PROCESSES_FACT: context.world_size,
    }
    if teachers:
        facts[distillation.TEACHERS_FACT] = teachers.facts()
    weights = class_weights(data[Split.TRAIN].labels, config.train.class_weights)
    return TrainingRun(config, folder, model, pretrained, train, validation, facts, weights, context)


def _loaders(
    config: Config,
    model: Counter,
    data: DataSet,
    cache: Path,
    display: Display,
    context: DistributedContext,
    teachers: Teachers | None,
) -> tuple[Loader, Loader]:
    """Create the loaders of training and validation photos, or of their stored features if layers are frozen."""
    train, validation = data[Split.TRAIN], data[Split.VALIDATION]
    if len(train) < MIN_BATCH_SIZE * context.world_size:
        raise DataError(
            f"{config.data.labels}: {count_noun(len(train), 'training photo is', 'training photos are')} too few for"
            f" {count_noun(context.world_size, 'process', 'processes')}"
        )
    validation_shard = validation.shard(context)
    options = config.train
    common: dict[str, Any] = {"batch_size": options.batch_size, "seed": options.seed, "threads": options.readers}
    train_only: dict[str, Any] = {"accumulation_steps": options.accumulate, "context": context}

    def progress(batches: Iterator[Batch], photos: int, description: str) -> Iterator[Batch]:
        return track(display, batches, photos, description)

    feature_cache = FeatureCache(cache, config.augment, options, progress)
    if teachers:
        with context.local_main_first():
            train_only["teacher_probabilities"] = teachers.probabilities(
                train, feature_cache, mirrored=config.augment.flip
            )
    if not model.frozen_units:
        deferred = augments_on_device(config.augment, config.train.device)
        return (
            PhotoLoader(train, augment=config.augment, shuffle=True, deferred=deferred, **common, **train_only),
            PhotoLoader(validation_shard, augment=None, shuffle=False, **common),
        )
    with context.local_main_first():
        train_views = feature_cache.frozen_features(model, train, config.augment.views)
        (validation_view,) = feature_cache.frozen_features(model, validation, views=1)
    shard_view = validation_view[context.shard(len(validation))]
    flip = config.augment.flip
    return (
        FeatureLoader(train_views, train, flip=flip, shuffle=True, **common, **train_only),
        FeatureLoader([shard_view], validation_shard, flip=False, shuffle=False, **common),
    )


def _epoch_summary(row: dict[str, float], *, best: bool) -> str:
    return (
        f"epoch {row['epoch']:.0f}: loss {row['train_loss']:.4f}, validation accuracy {row['val_accuracy']:.1%},"
        f" RMSE {row['val_rmse']:.3f}, within one {row['val_within_one']:.1%}, loss {row['val_loss']:.4f},"
        f" {row['photos_per_second']:.0f} photos/s{' (best so far)' if best else ''}"
    )
