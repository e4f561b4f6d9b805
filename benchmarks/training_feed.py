"""Speed of training from JPEG files, compared with the same loop on tensors in memory.

    python -m benchmarks.training_feed --photos samples/bin-images --rounds 6 --limit 32 --threads 2
    python -m benchmarks.training_feed --photos TAR --device cuda --precision bf16 --batch-size 256 --readers 16

Both train a ResNet50. They alternate, so that other load on the machine affects both. Training from files includes all
the work of `fit`: reading, decoding, squashing and augmenting. In memory means in the device's memory and without
augmentation. Prints photos per second in each round, processor time per photo, which hardly depends on other load, and
the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from binwatch.cores import usable_cores
from trainer.config import AugmentConfig, Config, TrainConfig
from trainer.data.augment import augments_on_device
from trainer.data.dataset import PhotoSet
from trainer.data.index import Row
from trainer.data.loader import Batch, Loader
from trainer.data.photo_loader import PhotoLoader
from trainer.data.source import open_source
from trainer.data.split import Split
from trainer.distributed import devices
from trainer.models import build
from trainer.train.loop import TrainingRun
from trainer.train.network import check_compiler


class InMemory:
    """A loader that repeats a few batches of photos, kept as tensors on the device and not augmented."""

    features = False
    accumulation_steps = 1

    def __init__(self, photos: PhotoSet, config: Config, batches: int) -> None:
        train = config.train
        size = min(train.batch_size, len(photos))
        files = PhotoLoader(photos, size, seed=0, augment=None, shuffle=False, threads=train.readers)
        self.quantities = files.quantities
        self._length = batches
        self._batches = [
            replace(batch, inputs=batch.inputs.to(train.device), quantities=batch.quantities.to(train.device))
            for batch in islice(files.epoch(0), batches)
        ]

    def __len__(self) -> int:
        return self._length

    @property
    def photos(self) -> int:
        return sum(batch.photos for batch in self.epoch(0))

    def epoch(self, _: int) -> Iterator[Batch]:
        return islice(cycle(self._batches), self._length)


@dataclass(frozen=True, slots=True)
class EpochSpeed:
    """Photos per second in one epoch, and milliseconds of processor time (of all cores) per photo."""

    speed: float
    cpu_ms: float


def train_epoch(run: TrainingRun, batches: Loader, device: str) -> EpochSpeed:
    """Train one epoch on `batches`, and measure it."""
    run.train = batches
    began, processor_s = time.perf_counter(), time.process_time()
    run.train_steps(batches.epoch(0), 0)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    photos = batches.photos
    return EpochSpeed(photos / (time.perf_counter() - began), (time.process_time() - processor_s) / photos * 1e3)


def main() -> None:
    options = _options()
    config = _config(options)
    devices.set_up(config.train)
    check_compiler(config.train)
    source = open_source(options.photos)
    keys = list(source.sizes())[: options.limit]
    rows = tuple(Row(key, number % 7, key, Split.TRAIN) for number, key in enumerate(keys))
    photos = PhotoSet(source, rows, jpeg_quality=options.jpeg_quality or None)
    files = PhotoLoader(
        replace(photos, rows=photos.rows * options.repeat), options.batch_size, seed=0, augment=AugmentConfig(),
        shuffle=True, threads=options.readers, deferred=augments_on_device(config.augment, config.train.device),
    )  # fmt: skip
    memory = InMemory(photos, config, len(files))
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    model = build(config.model).to(device=options.device, memory_format=layout)
    compiled = ", compiled" if options.compile else ""
    print(
        f"ResNet50, {files.photos} photos in batches of {options.batch_size}, {options.precision}{compiled};", end=" "
    )
    print(f"{devices.describe_hardware(config.train)}, {usable_cores()} usable cores, {options.readers} readers")
    with TemporaryDirectory() as folder:
        run = TrainingRun(config, Path(folder), model, [], files, files, {})
        for each in (files, memory):
            train_epoch(run, each, options.device)  # warm-up: allocates, compiles and fills the page cache
        print(f"{'round':8}{'from files':>22}{'in memory':>22}{'speed':>9}", flush=True)
        rounds = []
        for number in range(1, options.rounds + 1):
            rounds.append([train_epoch(run, each, options.device) for each in (files, memory)])
            _print_row(str(number), *rounds[-1])
    _summarise(rounds)


def _config(options: argparse.Namespace) -> Config:
    train = {
        "batch_size": options.batch_size, "device": options.device, "precision": options.precision,
        "channels_last": options.device != "cpu", "compile": options.compile, "threads": options.threads,
        "readers": options.readers,
    }  # fmt: skip
    return Config.model_validate(
        {"data": {"photos": options.photos, "index": "none"}, "model": {"weights": "none"}, "train": train}
    )


def _summarise(rounds: list[list[EpochSpeed]]) -> None:
    files, memory = (
        EpochSpeed(statistics.median(each.speed for each in column), statistics.median(each.cpu_ms for each in column))
        for column in zip(*rounds, strict=True)
    )
    _print_row("median", files, memory)
    ratios = sorted(from_files.speed / in_memory.speed for from_files, in_memory in rounds)
    print(
        f"from files at {statistics.median(ratios):.1%} of the speed in memory"
        f" (median of the rounds; {ratios[0]:.1%} to {ratios[-1]:.1%});"
        f" reading takes {files.cpu_ms - memory.cpu_ms:.1f} ms of processor time a photo,"
        f" training {memory.cpu_ms:.1f} ms"
    )


def _print_row(name: str, files: EpochSpeed, memory: EpochSpeed) -> None:
    cells = (f"{each.speed:,.1f}/s {each.cpu_ms:,.1f} ms" for each in (files, memory))
    print(f"{name:8}{next(cells):>22}{next(cells):>22}{files.speed / memory.speed:>9.1%}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder or tar")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--jpeg-quality", type=int, default=0, help="as data.jpeg_quality")
    parser.add_argument("--compile", action="store_true", help="as train.compile")
    parser.add_argument("--readers", type=int, default=TrainConfig().readers, help="as train.readers")
    parser.add_argument("--repeat", type=int, default=1, help="number of times that an epoch uses each photo")
    parser.add_argument("--limit", type=int, help="use only the first N photos")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0: all")
    return parser.parse_args()


if __name__ == "__main__":
    main()
