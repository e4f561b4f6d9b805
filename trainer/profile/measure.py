"""The measurements, with the loop of `fit` itself, on a sample of its photos."""

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
from trainer.data.dataset import DataSet, PhotoSet, check_quality, decode_each, present_photos
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
"""Photos of the training split to measure with (at least a step's), and fewer if their features must be computed."""
TIMED_FEATURES = 64
"""Photos for which the computation of features is timed: a multiple of its batch size."""
VALIDATION = 256
"""Largest number of photos of the validation split."""
WARM_UP = 3
"""Steps before the first timed one: memory is allocated, the network is compiled, and photos are read ahead."""
FEWEST, MOST = 3, 1000
"""Smallest and largest number of steps of a measurement."""
KEPT = 4
"""Batches in memory for measuring the network alone."""
READ_TOGETHER = 8
"""Photos in a batch for measuring reading alone."""


@dataclass
class Profile:
    """The measured figures. Speeds are photos per second, of all processes together."""

    machine: Machine
    config: dict[str, Any]
    """The options on which the speeds depend."""
    photos: dict[str, int]
    """Number of photos of each split."""
    mean_bytes: float
    """Mean size of a photo's file."""
    training: float = 0.0
    """Speed of training with photos from files."""
    network: float = 0.0
    """Speed of the same loop on photos in memory."""
    readers: dict[int, float] = field(default_factory=dict)
    """Number of reading threads in each process → speed of reading alone."""
    wait: float = 0.0
    """Share of the training time that is spent waiting for photos."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds of a step in each stage."""
    steps: int = 0
    """Number of timed steps."""
    checking: float = 0.0
    """Speed of decoding every photo once before a run."""
    features: float | None = None
    """Speed of computing features of frozen layers, for a photo and view. None: no layer is frozen."""
    feature_bytes: float = 0.0
    """Size of the features on the disk, for a photo and view."""
    scoring: float = 0.0
    """Speed of scoring validation photos."""
    saving_seconds: float = 0.0
    """Duration of writing an epoch's checkpoints."""
    usage: Usage = field(default_factory=Usage)
    """Usage of the machine, and by this process, during training."""

    @property
    def epoch_seconds(self) -> float:
        """Duration of an epoch, including scoring and checkpoints."""
        scoring = self.photos[Split.VALIDATION] / self.scoring
        return self.photos[Split.TRAIN] / self.training + scoring + self.saving_seconds

    @property
    def once_seconds(self) -> float:
        """Duration before the first epoch: decoding of every photo, and the frozen layers' features."""
        seconds = sum(self.photos.values()) / self.checking
        return seconds if self.features is None else seconds + self.views / self.features

    @property
    def views(self) -> int:
        """Number of views of all photos for which features are computed."""
        return int(self.config["augment.views"] * self.photos[Split.TRAIN] + self.photos[Split.VALIDATION])

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        return asdict(self) | {"epoch_seconds": self.epoch_seconds, "once_seconds": self.once_seconds}


def profile(
    config: Config, display: Display, *, seconds: float = 15.0, context: DistributedContext = SINGLE_PROCESS
) -> Profile:
    """Measure reading alone, the network alone, and training, for about `seconds` each.

    Nothing is stored. Raises the errors of `fit`.
    """
    config = config.model_copy(update={"train": devices.chosen(config.train, display, context)})
    devices.prepare(config.train, context)
    check_compiler(config.train)
    check_quality(config.data)
    every, _ = present_photos(config.data, context)
    sizes = every.source.sizes()
    found = Profile(
        machine(config.train.device), _facts(config, context), {split.value: len(every.of(split)) for split in Split},
        mean_bytes=sum(sizes[key] for key in every.keys) / len(every),
    )  # fmt: skip
    data = _sample(config, every, found, display, context)
    with TemporaryDirectory() as folder:
        run = _run(config, data, Path(folder), found, display, context)
        _Measuring(run, data, found, display, seconds).all()
    return found


class _Measuring:
    """The measurements, one after the other, so that they do not disturb each other."""

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
        own = self._train.readers
        # Other numbers of readers, too: only those that were faster in the measurement are recommended.
        tried = {own} if self._run.train.features else {max(own // 2, 1), own, own * 2, own * 4}
        found.readers = {readers: self._reading(readers) for readers in sorted(tried)}
        found.network = self._network()
        self._training()
        self._scoring_and_saving()

    def _reading(self, readers: int) -> float:
        self._say(f"reading alone, {many(readers, 'thread')}")
        with closing(endless(self._batches(readers))) as source:
            for _ in range(max(AHEAD, readers) + 1):  # batches that were read ahead before the clock started
                next(source)
            photos, began = 0, time.perf_counter()
            while (passed := time.perf_counter() - began) < self._seconds / 2 or not photos:
                photos += next(source).photos
        speeds = self._run.context.all_gather(photos / passed)
        return float(sum(speeds) / len(speeds))

    def _batches(self, readers: int) -> Loader:
        """The run's photos, read by `readers` threads; in small batches, so that few are unfinished at the end."""
        run, train, augment = self._run, self._train, self._run.config.augment
        if run.train.features:
            return run.train
        return PhotoLoader(
            self._data[Split.TRAIN], min(READ_TOGETHER, train.batch_size), seed=train.seed, augment=augment,
            shuffle=True, threads=readers, context=run.context, deferred=augments_on_device(augment, train.device),
        )  # fmt: skip

    def _network(self) -> float:
        """Speed of training on a few batches in memory. Augmentation on the device is included, if it is used."""
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
            if self._on_gpu:  # the stages one by one, with a wait for the GPU after each
                run.step.timer = self._stopwatch = Stopwatch(self._train.device)
                self._timed(islice(source, found.steps * run.train.accumulation_steps))
        run.step.timer = untimed
        found.stages = {stage.value: seconds / found.steps for stage, seconds in self._stopwatch.seconds.items()}

    def _scoring_and_saving(self) -> None:
        self._say("scoring")
        began = time.perf_counter()
        row = self._run.score()
        self._found.scoring = len(self._data[Split.VALIDATION]) / (time.perf_counter() - began)
        self._run.history.append({"epoch": 1, "seconds": 0.0, **row})
        self._run.epoch = 1
        began = time.perf_counter()
        if self._run.context.is_main:
            self._run.save()
        self._found.saving_seconds = time.perf_counter() - began

    @property
    def _on_gpu(self) -> bool:
        return bool(self._found.machine.gpu)

    def _warm_up(self, batches: Iterator[Batch]) -> int:
        """Take some steps. Returns the number of steps that take about `seconds`, the same in each process."""
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
    """The batches of one epoch after another."""
    for number in count():
        yield from batches.epoch(number)


def _sample(config: Config, every: PhotoSet, found: Profile, display: Display, context: DistributedContext) -> DataSet:
    """Some photos of each split. Each is decoded once, as `fit` does with all photos before training."""
    train = _some(every.of(Split.TRAIN), max(SAMPLE_FROZEN if config.model.freeze else SAMPLE, _step(config, context)))
    validation = _some(every.of(Split.VALIDATION), VALIDATION)
    chosen = replace(every, rows=train.rows + validation.rows)

    def bar(keys: Any) -> Any:
        return display.track(keys, len(keys), "checking a sample of the photos")

    began = time.perf_counter()
    decoded = decode_each(config.data, chosen, bar, context)
    found.checking = len(chosen) / (time.perf_counter() - began)
    say_left_out(config.data, (), decoded.unreadable, display)
    parts = {split: decoded.readable.of(split) for split in Split}
    for split in (Split.TRAIN, Split.VALIDATION):
        if not parts[split]:
            raise DataError(f"{config.data.labels}: no photo falls into the {split} split; more photos are needed")
    parts[Split.TRAIN] = _whole_steps(parts[Split.TRAIN], _step(config, context), repeat=not config.model.freeze)
    return DataSet(parts, (), decoded.unreadable)


def _step(config: Config, context: DistributedContext) -> int:
    return config.train.batch_size * config.train.accumulate * context.world_size


def _whole_steps(photos: PhotoSet, step: int, *, repeat: bool) -> PhotoSet:
    """The photos of whole steps, so that all batches have the same size.

    With `repeat`, one epoch is long enough for all measurements, so that readers start only once.
    """
    rows = photos.rows * (1 + 3 * MOST * step // len(photos)) if repeat else photos.rows
    return replace(photos, rows=rows[: max(len(rows) // step, 1) * step])


def _some(photos: PhotoSet, most: int) -> PhotoSet:
    """Up to `most` photos, spread evenly over the set."""
    if len(photos) <= most:
        return photos
    chosen = np.linspace(0, len(photos) - 1, most).astype(int)
    return replace(photos, rows=tuple(photos.rows[place] for place in chosen))


def _run(
    config: Config, data: DataSet, folder: Path, found: Profile, display: Display, context: DistributedContext
) -> TrainingRun:
    """A run as made by `fit`. Features of frozen layers are computed now, and some of them again for timing."""
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
