"""The measurements, by the very loop that `fit` trains with, on a sample of its photos."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import count, cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from binwatch.text import many
from trainer.config import Config
from trainer.data.augment import augments_on_device
from trainer.data.dataset import DataSet, PhotoSet, check_quality, look_at_each, present_photos
from trainer.data.loader import Batch, Loader
from trainer.data.loading import follow, say_left_out
from trainer.data.photo_loader import PhotoLoader
from trainer.data.read_ahead import AHEAD
from trainer.data.split import Split
from trainer.display import Display
from trainer.distributed import devices
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext
from trainer.errors import DataError
from trainer.profile.usage import Machine, Usage, UsageWatch, machine
from trainer.train.features import FeatureCache
from trainer.train.fit import make_run
from trainer.train.loop import TrainingRun
from trainer.train.network import check_compiler
from trainer.train.step_timer import Stage, Stopwatch, untimed

SAMPLE, SAMPLE_FROZEN = 2048, 256
"""Photos of the training split to measure with, or a step if that has more; fewer where features are computed first."""
TIMED_FEATURES = 64
"""Photos whose features are computed by the clock: a multiple of the batches in which that is done."""
VALIDATION = 256
"""Photos of the validation split, at most."""
WARM_UP = 3
"""Steps before the first that is timed: memory is allocated, programs are compiled, readers get ahead."""
FEWEST, MOST = 3, 1000
"""Steps of a measurement."""
KEPT = 4
"""Batches in memory for the network alone."""
READ_TOGETHER = 8
"""Photos in a batch when reading is measured alone."""


@dataclass
class Profile:
    """What was measured. Speeds are photos per second, of all processes together."""

    machine: Machine
    config: dict[str, Any]
    """What the speeds depend on."""
    photos: dict[str, int]
    """Of each split, in all."""
    mean_bytes: float
    """Of a photo's file."""
    training: float = 0.0
    """As it trains: photos from files, all else too."""
    network: float = 0.0
    """The same loop on photos in memory."""
    readers: dict[int, float] = field(default_factory=dict)
    """The reading alone, with so many threads in each process."""
    wait: float = 0.0
    """Share of the time that training waits for photos."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds of a step in each stage."""
    steps: int = 0
    """That were timed."""
    checking: float = 0.0
    """The look at every photo before a run."""
    features: float | None = None
    """Frozen layers, computed once for each photo and view. None: no layer is frozen."""
    feature_bytes: float = 0.0
    """That they take on the disk, for each photo and view."""
    scoring: float = 0.0
    """Validation photos."""
    saving_seconds: float = 0.0
    """Of an epoch's checkpoints."""
    usage: Usage = field(default_factory=Usage)
    """While it trains, on this machine and of this process."""

    @property
    def epoch_seconds(self) -> float:
        """An epoch with its scoring and checkpoints."""
        scoring = self.photos[Split.VALIDATION] / self.scoring
        return self.photos[Split.TRAIN] / self.training + scoring + self.saving_seconds

    @property
    def once_seconds(self) -> float:
        """Before the first epoch: the look at every photo, and the frozen layers' features."""
        seconds = sum(self.photos.values()) / self.checking
        return seconds if self.features is None else seconds + self.views / self.features

    @property
    def views(self) -> int:
        """How many photos' features are computed, a photo in each view counted anew."""
        return int(self.config["augment.views"] * self.photos[Split.TRAIN] + self.photos[Split.VALIDATION])

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"epoch_seconds": self.epoch_seconds, "once_seconds": self.once_seconds}


def profile(
    config: Config, display: Display, *, seconds: float = 15.0, context: DistributedContext = SINGLE_PROCESS
) -> Profile:
    """Measure for about `seconds` each: reading alone, the network alone, and both as they train.

    Nothing is kept: the network learns a little and is forgotten. Raises what `fit` would raise.
    """
    config = config.model_copy(update={"train": devices.chosen(config.train, display, context)})
    devices.prepare(config.train, context)
    check_compiler(config.train)
    check_quality(config.data)
    every, _ = present_photos(config.data, context)
    found = Profile(machine(config.train.device), _facts(config, context), _counts(every), _mean_bytes(every))
    data = _sample(config, every, found, display, context)
    with TemporaryDirectory() as folder:
        run = _run(config, data, Path(folder), found, display, context)
        _Measuring(run, data, found, display, seconds).all()
    return found


class _Measuring:
    """One after the other, so that none disturbs another."""

    def __init__(self, run: TrainingRun, data: DataSet, found: Profile, display: Display, seconds: float) -> None:
        self._run = run
        self._data = data
        self._found = found
        self._display = display
        self._seconds = seconds
        self._train = run.config.train
        self._stopwatch = Stopwatch(self._train.device)

    def all(self) -> None:
        found = self._found
        found.readers = {readers: self._reading(readers) for readers in self._readers()}
        found.network = self._network()
        self._training()
        self._scoring()
        self._saving()

    def _readers(self) -> list[int]:
        """The configured number, and others around it: only what was measured to be faster is advised."""
        own = self._train.readers
        return sorted({max(own // 2, 1), own, own * 2, own * 4} if not self._run.train.features else {own})

    def _reading(self, readers: int) -> float:
        self._say(f"reading alone, {many(readers, 'thread')}")
        with closing(endless(self._batches(readers))) as source:
            for _ in range(max(AHEAD, readers) + 1):  # what was read ahead before the clock started
                next(source)
            photos, began = 0, time.perf_counter()
            while (passed := time.perf_counter() - began) < self._seconds / 2 or not photos:
                photos += next(source).photos
        speeds = self._run.context.all_gather(photos / passed)
        return float(sum(speeds) / len(speeds))

    def _batches(self, readers: int) -> Loader:
        """The run's photos by another number of threads; in small batches, so that few are half-read at the end."""
        run, train, augment = self._run, self._train, self._run.config.augment
        if run.train.features:
            return run.train
        return PhotoLoader(
            self._data[Split.TRAIN], min(READ_TOGETHER, train.batch_size), seed=train.seed, augment=augment,
            shuffle=True, threads=readers, context=run.context, deferred=augments_on_device(augment, train.device),
        )  # fmt: skip

    def _network(self) -> float:
        """On photos in memory, again and again. They are changed as they are when they train on the device."""
        self._say("network alone, on photos in memory")
        with closing(endless(self._run.train)) as source:
            kept = list(islice(source, max(KEPT, self._run.train.accumulation_steps)))
        kept = kept[: len(kept) // self._run.train.accumulation_steps * self._run.train.accumulation_steps]
        steps = self._warm_up(cycle(kept))
        return self._timed(islice(cycle(kept), steps * self._run.train.accumulation_steps))

    def _training(self) -> None:
        self._say("training")
        found, run = self._found, self._run
        with closing(endless(run.train)) as source:
            found.steps = self._warm_up(source)
            run.step.timer = self._stopwatch.waits_only if self._on_gpu else self._stopwatch
            with UsageWatch(self._train.device) as watch:
                found.training = self._timed(islice(source, found.steps * run.train.accumulation_steps))
            found.usage = watch.usage
            found.wait = self._stopwatch.seconds[Stage.WAIT] / found.usage.seconds
            if self._on_gpu:  # its stages one by one, each awaited
                run.step.timer = self._stopwatch = Stopwatch(self._train.device)
                self._timed(islice(source, found.steps * run.train.accumulation_steps))
        run.step.timer = untimed
        found.stages = {stage.value: seconds / found.steps for stage, seconds in self._stopwatch.seconds.items()}

    def _scoring(self) -> None:
        self._say("scoring")
        began = time.perf_counter()
        row = self._run.score()
        self._found.scoring = len(self._data[Split.VALIDATION]) / (time.perf_counter() - began)
        self._run.history.append({"epoch": 1, "seconds": 0.0, **row})

    def _saving(self) -> None:
        self._run.epoch = 1
        began = time.perf_counter()
        if self._run.context.is_main:
            self._run.save()
        self._found.saving_seconds = time.perf_counter() - began

    @property
    def _on_gpu(self) -> bool:
        return bool(self._found.machine.gpu)

    def _warm_up(self, batches: Iterator[Batch]) -> int:
        """Some steps; how many take as long as a measurement should, the same number in each process."""
        self._run.take_steps(islice(batches, WARM_UP * self._run.train.accumulation_steps), 0)
        self._stopwatch.wait()
        began = time.perf_counter()
        self._run.take_steps(islice(batches, self._run.train.accumulation_steps), 0)
        self._stopwatch.wait()
        wanted = self._seconds / (time.perf_counter() - began)
        return int(self._run.context.broadcast(min(max(round(wanted), FEWEST), MOST)))

    def _timed(self, batches: Iterable[Batch]) -> float:
        """Photos per second of training on `batches`."""
        photos = 0

        def counted() -> Iterator[Batch]:
            nonlocal photos
            for batch in batches:
                photos += batch.photos
                yield batch

        began = time.perf_counter()
        self._run.take_steps(counted(), 0)
        self._stopwatch.wait()
        return photos / (time.perf_counter() - began)

    def _say(self, what: str) -> None:
        self._display.say(f"measuring: {what}")


def endless(batches: Loader) -> Generator[Batch]:
    """One epoch after another."""
    for number in count():
        yield from batches.epoch(number)


def _sample(config: Config, every: PhotoSet, found: Profile, display: Display, context: DistributedContext) -> DataSet:
    """Some photos of each split, decoded once, as `fit` decodes all before it trains."""
    train, validation = (_part(every, split) for split in (Split.TRAIN, Split.VALIDATION))
    train = _some(train, max(SAMPLE_FROZEN if config.model.freeze else SAMPLE, _step(config, context)))
    validation = _some(validation, VALIDATION)
    chosen = replace(every, rows=train.rows + validation.rows)

    def bar(keys: Any) -> Any:
        return display.follow(keys, len(keys), "checking a sample of the photos")

    began = time.perf_counter()
    looked = look_at_each(config.data, chosen, bar, context)
    found.checking = len(chosen) / (time.perf_counter() - began)
    say_left_out(config.data, (), looked.unreadable, display)
    parts = {split: _part(looked.readable, split) for split in Split}
    for split in (Split.TRAIN, Split.VALIDATION):
        if not parts[split]:
            raise DataError(f"{config.data.labels}: no photo falls into the {split} split; more photos are needed")
    parts[Split.TRAIN] = _whole_steps(parts[Split.TRAIN], _step(config, context), repeat=not config.model.freeze)
    return DataSet(parts, (), looked.unreadable)


def _step(config: Config, context: DistributedContext) -> int:
    return config.train.batch_size * config.train.accumulate * context.world_size


def _whole_steps(photos: PhotoSet, step: int, *, repeat: bool) -> PhotoSet:
    """In batches of one size. Repeated, one epoch is enough for all: the readers' start is not seen again and again."""
    rows = photos.rows * (1 + 3 * MOST * step // len(photos)) if repeat else photos.rows
    return replace(photos, rows=rows[: max(len(rows) // step, 1) * step])


def _part(photos: PhotoSet, split: Split) -> PhotoSet:
    return photos.where(lambda row: row.split is split)


def _some(photos: PhotoSet, most: int) -> PhotoSet:
    """Up to `most` photos from all over the set."""
    if len(photos) <= most:
        return photos
    chosen = np.linspace(0, len(photos) - 1, most).astype(int)
    return replace(photos, rows=tuple(photos.rows[place] for place in chosen))


def _run(
    config: Config, data: DataSet, folder: Path, found: Profile, display: Display, context: DistributedContext
) -> TrainingRun:
    """A run as `fit` makes it. Features of frozen layers are computed now, and some again by the clock."""
    run = make_run(config, data, folder, folder / "features", display, context)
    if run.train.features:
        some, views = _some(data[Split.TRAIN], TIMED_FEATURES), min(config.augment.views, 2)  # unchanged and augmented

        def bar(batches: Iterator[Batch], photos: int, what: str) -> Iterator[Batch]:
            return follow(display, batches, photos, f"again: {what}")

        with context.local_main_first():
            began = time.perf_counter()
            FeatureCache(folder / "again", config.augment, config.train, bar).of_frozen_layers(run.model, some, views)
            found.features = views * len(some) / (time.perf_counter() - began)
            files = (file.stat().st_size for file in (folder / "again").glob("*.npy"))
            found.feature_bytes = sum(files) / (views * len(some))
    return run


def _facts(config: Config, context: DistributedContext) -> dict[str, Any]:
    model, train = config.model, config.train
    return {
        "model.architecture": model.architecture,
        "model.freeze": model.freeze,
        "train.device": train.device,
        "train.precision": train.precision,
        "train.channels_last": train.channels_last,
        "train.compile": train.compile,
        "train.batch_size": train.batch_size,
        "train.accumulate": train.accumulate,
        "train.readers": train.readers,
        "augment.views": config.augment.views,
        "processes": context.world_size,
        "hardware": devices.hardware(train),
    }


def _counts(photos: PhotoSet) -> dict[str, int]:
    return {split.value: sum(row.split is split for row in photos.rows) for split in Split}


def _mean_bytes(photos: PhotoSet) -> float:
    sizes = photos.source.sizes()
    return sum(sizes[key] for key in photos.keys) / len(photos)
