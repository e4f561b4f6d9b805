"""The measurements of `profile`. They use the training loop of `fit`, on a sample of the photos."""

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

from binwatch.text import count_noun
from trainer.config import Config
from trainer.data.augment import augments_on_device
from trainer.data.dataset import DataSet, PhotoSet, check_jpeg_quality, decode_photos, find_photos
from trainer.data.loader import Batch, Loader
from trainer.data.loading import report_left_out, track
from trainer.data.photo_loader import PhotoLoader
from trainer.data.read_ahead import MIN_READ_AHEAD
from trainer.data.split import Split
from trainer.display import Display
from trainer.distributed import devices
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext
from trainer.errors import DataError
from trainer.profile.usage import Machine, Usage, UsageWatch, machine
from trainer.train.features import FeatureCache
from trainer.train.fit import create_run
from trainer.train.loop import TrainingRun
from trainer.train.network import check_compiler
from trainer.train.step_timer import Stage, Stopwatch, untimed

MAX_TRAIN_PHOTOS, MAX_TRAIN_PHOTOS_FROZEN = 2048, 256
"""Maximum number of training photos in the sample, and the smaller maximum if features of frozen layers must be
computed. If a step has more photos than that, its number of photos is the maximum."""
TIMED_FEATURE_PHOTOS = 64
"""Photos for which the computation of features is timed. A multiple of FEATURE_BATCH_SIZE."""
MAX_VALIDATION_PHOTOS = 256
"""Maximum number of validation photos in the sample."""
WARM_UP_STEPS = 3
"""Steps before the first timed one: memory is allocated, the network is compiled, and photos are read ahead."""
MIN_STEPS, MAX_STEPS = 3, 1000
"""Minimum and maximum number of steps of a measurement."""
MIN_BATCHES_IN_MEMORY = 4
"""Minimum number of batches in memory for measuring the network alone."""
READING_BATCH_SIZE = 8
"""Maximum photos per batch for measuring reading alone. A small batch leaves few photos unfinished at the end."""


@dataclass
class Profile:
    """The measured figures. Speeds are photos per second, of all processes together."""

    machine: Machine
    config: dict[str, Any]
    """The options that affect the speeds."""
    photos: dict[str, int]
    """Split → number of photos."""
    mean_bytes: float
    """Mean size of a photo's file."""
    training: float = 0.0
    """Speed of training with photos from files."""
    network: float = 0.0
    """Speed of the same training loop with photos in memory."""
    readers: dict[int, float] = field(default_factory=dict)
    """Reading threads per process → speed of reading alone."""
    wait: float = 0.0
    """Share of the training time that is spent waiting for photos."""
    stages: dict[str, float] = field(default_factory=dict)
    """Stage → seconds per step."""
    steps: int = 0
    """Number of timed steps."""
    checking: float = 0.0
    """Speed of decoding every photo once before a run."""
    features: float | None = None
    """Speed of computing the features of frozen layers, in views of photos per second. None: no layer is frozen."""
    feature_bytes: float = 0.0
    """Size of the features of one view of a photo on the disk."""
    scoring: float = 0.0
    """Speed of scoring validation photos."""
    saving_seconds: float = 0.0
    """Duration of writing an epoch's checkpoints."""
    usage: Usage = field(default_factory=Usage)
    """Usage of the machine during training, by all programs and by this process."""

    @property
    def epoch_seconds(self) -> float:
        """Duration of an epoch, including scoring and checkpoints."""
        scoring = self.photos[Split.VALIDATION] / self.scoring
        return self.photos[Split.TRAIN] / self.training + scoring + self.saving_seconds

    @property
    def once_seconds(self) -> float:
        """Duration before the first epoch: decoding every photo, and computing the features of frozen layers."""
        seconds = sum(self.photos.values()) / self.checking
        return seconds if self.features is None else seconds + self.views / self.features

    @property
    def views(self) -> int:
        """Total number of photo views for which features are computed."""
        return int(self.config["augment.views"] * self.photos[Split.TRAIN] + self.photos[Split.VALIDATION])

    def as_json(self) -> dict[str, Any]:
        """All figures, measured and derived."""
        return asdict(self) | {"epoch_seconds": self.epoch_seconds, "once_seconds": self.once_seconds}


def profile(
    config: Config, display: Display, *, seconds: float = 15.0, context: DistributedContext = SINGLE_PROCESS
) -> Profile:
    """Measure reading alone, the network alone, and training, for about `seconds` each.

    Reading is measured for half as long, with each number of readers. Keeps no files. Raises the same errors as `fit`.
    """
    config = config.model_copy(update={"train": devices.resolve(config.train, display, context)})
    devices.set_up(config.train, context)
    check_compiler(config.train)
    check_jpeg_quality(config.data)
    photos, _ = find_photos(config.data, context)
    sizes = photos.source.sizes()
    result = Profile(
        machine(config.train.device), _facts(config, context),
        {split.value: len(photos.select(split)) for split in Split},
        mean_bytes=sum(sizes[key] for key in photos.keys) / len(photos),
    )  # fmt: skip
    data = _check_sample(config, photos, result, display, context)
    with TemporaryDirectory() as folder:
        run = _make_run(config, data, Path(folder), result, display, context)
        _Profiler(run, data, result, display, seconds).measure()
    return result


class _Profiler:
    """Fills in a `Profile`. The measurements run one after the other, so that they do not disturb each other."""

    def __init__(self, run: TrainingRun, data: DataSet, result: Profile, display: Display, seconds: float) -> None:
        self._run = run
        self._data = data
        self._result = result
        self._display = display
        self._seconds = seconds
        self._train = run.config.train
        self._stopwatch = Stopwatch(self._train.device)

    def measure(self) -> None:
        result = self._result
        configured = self._train.readers
        # Also measure other numbers of readers: one is recommended only if it was measured to be faster.
        candidates = {configured}
        if not self._run.train.features:
            candidates |= {max(configured // 2, 1), configured * 2, configured * 4}
        result.readers = {readers: self._measure_reading(readers) for readers in sorted(candidates)}
        result.network = self._measure_network()
        self._measure_training()
        self._measure_scoring_and_saving()

    def _measure_reading(self, readers: int) -> float:
        """Measure the photos per second that all processes read with `readers` threads each."""
        self._say(f"reading alone, {count_noun(readers, 'thread')}")
        with closing(endless(self._reading_loader(readers))) as source:
            for _ in range(
                max(MIN_READ_AHEAD, readers) + 1
            ):  # skip batches that were read ahead before the clock started
                next(source)
            photos, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < self._seconds / 2 or not photos:
                photos += next(source).photos
        speeds = self._run.context.all_gather(photos / elapsed)
        return float(sum(speeds) / len(speeds))

    def _reading_loader(self, readers: int) -> Loader:
        """Return a loader of the run's photos with `readers` threads and small batches."""
        run, train, augment = self._run, self._train, self._run.config.augment
        if run.train.features:
            return run.train
        return PhotoLoader(
            self._data[Split.TRAIN], min(READING_BATCH_SIZE, train.batch_size), seed=train.seed, augment=augment,
            shuffle=True, threads=readers, context=run.context, deferred=augments_on_device(augment, train.device),
        )  # fmt: skip

    def _measure_network(self) -> float:
        """Measure training on a few batches in memory. This includes augmentation if it runs on the device."""
        self._say("network alone, on photos in memory")
        accumulation_steps = self._run.train.accumulation_steps
        with closing(endless(self._run.train)) as source:
            batches = list(islice(source, max(MIN_BATCHES_IN_MEMORY, accumulation_steps)))
        batches = batches[: len(batches) // accumulation_steps * accumulation_steps]
        steps = self._warm_up(cycle(batches))
        return self._time_steps(islice(cycle(batches), steps * accumulation_steps))

    def _measure_training(self) -> None:
        """Measure training with photos from files: its speed, the machine's usage, and the stages of a step."""
        self._say("training")
        result, run = self._result, self._run
        with closing(endless(run.train)) as source:
            result.steps = self._warm_up(source)
            run.step.timer = self._stopwatch.waits_only if self._on_gpu else self._stopwatch
            with UsageWatch(self._train.device) as watch:
                result.training = self._time_steps(islice(source, result.steps * run.train.accumulation_steps))
            result.usage = watch.usage
            result.wait = self._stopwatch.seconds[Stage.WAIT] / result.usage.seconds
            if self._on_gpu:  # time the stages separately, because this waits for the GPU after each of them
                run.step.timer = self._stopwatch = Stopwatch(self._train.device)
                self._time_steps(islice(source, result.steps * run.train.accumulation_steps))
        run.step.timer = untimed
        result.stages = {stage.value: seconds / result.steps for stage, seconds in self._stopwatch.seconds.items()}

    def _measure_scoring_and_saving(self) -> None:
        self._say("scoring")
        start = time.perf_counter()
        row = self._run.validate()
        self._result.scoring = len(self._data[Split.VALIDATION]) / (time.perf_counter() - start)
        self._run.history.append({"epoch": 1, "seconds": 0.0, **row})
        self._run.epoch = 1
        start = time.perf_counter()
        if self._run.context.is_main:
            self._run.save()
        self._result.saving_seconds = time.perf_counter() - start

    @property
    def _on_gpu(self) -> bool:
        return bool(self._result.machine.gpu)

    def _warm_up(self, batches: Iterator[Batch]) -> int:
        """Take some steps. Returns the number of steps that take about `seconds`, the same in each process."""
        self._run.train_steps(islice(batches, WARM_UP_STEPS * self._run.train.accumulation_steps), 0)
        self._stopwatch.wait()
        start = time.perf_counter()
        self._run.train_steps(islice(batches, self._run.train.accumulation_steps), 0)
        self._stopwatch.wait()
        steps = round(self._seconds / (time.perf_counter() - start))
        return int(self._run.context.broadcast(min(max(steps, MIN_STEPS), MAX_STEPS)))

    def _time_steps(self, batches: Iterable[Batch]) -> float:
        """Train on `batches`, and return the photos per second."""
        photos = 0

        def counted() -> Iterator[Batch]:
            nonlocal photos
            for batch in batches:
                photos += batch.photos
                yield batch

        start = time.perf_counter()
        self._run.train_steps(counted(), 0)
        self._stopwatch.wait()
        return photos / (time.perf_counter() - start)

    def _say(self, what: str) -> None:
        self._display.say(f"measuring: {what}")


def endless(batches: Loader) -> Generator[Batch]:
    """Yield the batches of one epoch after another, without end."""
    for epoch in count():
        yield from batches.epoch(epoch)


def _check_sample(
    config: Config, photos: PhotoSet, result: Profile, display: Display, context: DistributedContext
) -> DataSet:
    """Select a sample of the photos, and time their check: `fit` decodes every photo once before training."""
    step = _photos_per_step(config, context)
    max_train = max(MAX_TRAIN_PHOTOS_FROZEN if config.model.freeze else MAX_TRAIN_PHOTOS, step)
    train = _evenly_spaced(photos.select(Split.TRAIN), max_train)
    validation = _evenly_spaced(photos.select(Split.VALIDATION), MAX_VALIDATION_PHOTOS)
    sample = replace(photos, rows=train.rows + validation.rows)

    def bar(keys: Any) -> Any:
        return display.track(keys, len(keys), "checking a sample of the photos")

    start = time.perf_counter()
    decoded = decode_photos(config.data, sample, bar, context)
    result.checking = len(sample) / (time.perf_counter() - start)
    report_left_out(config.data, (), decoded.unreadable, display)
    splits = {split: decoded.readable.select(split) for split in Split}
    for split in (Split.TRAIN, Split.VALIDATION):
        if not splits[split]:
            raise DataError(f"{config.data.labels}: no photo falls into the {split} split; more photos are needed")
    splits[Split.TRAIN] = _whole_steps(splits[Split.TRAIN], step, repeat=not config.model.freeze)
    return DataSet(splits, (), decoded.unreadable)


def _photos_per_step(config: Config, context: DistributedContext) -> int:
    return config.train.batch_size * config.train.accumulate * context.world_size


def _whole_steps(photos: PhotoSet, step: int, *, repeat: bool) -> PhotoSet:
    """Trim the photos to a multiple of `step`, the photos per step, so that all batches have the same size.

    With `repeat`, the photos are repeated until one epoch suffices for all measurements, so that readers start once.
    """
    rows = photos.rows * (1 + 3 * MAX_STEPS * step // len(photos)) if repeat else photos.rows
    return replace(photos, rows=rows[: max(len(rows) // step, 1) * step])


def _evenly_spaced(photos: PhotoSet, max_photos: int) -> PhotoSet:
    """Select up to `max_photos` photos, spread evenly over the set."""
    if len(photos) <= max_photos:
        return photos
    positions = np.linspace(0, len(photos) - 1, max_photos).astype(int)
    return replace(photos, rows=tuple(photos.rows[position] for position in positions))


def _make_run(
    config: Config, data: DataSet, folder: Path, result: Profile, display: Display, context: DistributedContext
) -> TrainingRun:
    """Make a run as `fit` does. This computes the features of frozen layers; some are computed again to time them."""
    run = create_run(config, data, folder, folder / "features", display, context)
    if run.train.features:
        sample = _evenly_spaced(data[Split.TRAIN], TIMED_FEATURE_PHOTOS)
        views = min(config.augment.views, 2)  # the unchanged view and an augmented one
        cache = folder / "again"

        def bar(batches: Iterator[Batch], photos: int, what: str) -> Iterator[Batch]:
            return track(display, batches, photos, f"again: {what}")

        with context.local_main_first():
            start = time.perf_counter()
            FeatureCache(cache, config.augment, config.train, bar).frozen_features(run.model, sample, views)
            result.features = views * len(sample) / (time.perf_counter() - start)
            n_bytes = sum(file.stat().st_size for file in cache.glob("*.npy"))
            result.feature_bytes = n_bytes / (views * len(sample))
    return run


def _facts(config: Config, context: DistributedContext) -> dict[str, Any]:
    """Return the options and facts that affect the speeds."""
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
        "hardware": devices.describe_hardware(train),
    }
