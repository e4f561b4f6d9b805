"""How fast training from JPEG files is beside the same loop on tensors that are in memory already.

    python -m benchmarks.training_feed --photos samples/bin-images --rounds 5

Both train a ResNet50; they take turns, so that other work on the machine hits both. From files means everything that
`fit` does: read, decode, squash and augment. Prints photos per second of each round and the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from binwatch.image import SIZE
from trainer.config import AugmentConfig, Config
from trainer.data.batches import Batch, Batches, PhotoBatches
from trainer.data.dataset import PhotoSet
from trainer.data.index import Row
from trainer.data.source import open_source
from trainer.data.split import Split
from trainer.loop import Run, augments_on_device
from trainer.models import build


class InMemory:
    """The photos as tensors where the network computes, not augmented."""

    features = False

    def __init__(self, photos: PhotoSet, batch_size: int, device: str) -> None:
        pixels = torch.from_numpy(photos.pixels(range(len(photos)), SIZE)).to(device)
        quantities = torch.from_numpy(photos.quantities)
        whole = len(photos) // batch_size * batch_size
        parts = zip(pixels[:whole].split(batch_size), quantities[:whole].split(batch_size), strict=True)
        self._batches = [Batch(*part) for part in parts]

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def photos(self) -> int:
        return sum(len(batch.quantities) for batch in self._batches)

    def epoch(self, _: int) -> Iterator[Batch]:
        return iter(self._batches)


def photos_per_second(run: Run, batches: Batches, device: str) -> float:
    run.train = batches
    began = time.perf_counter()
    run._train(lambda found, *_: found)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return batches.photos / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--repeat", type=int, default=1, help="use each photo so many times an epoch")
    parser.add_argument("--limit", type=int, help="use the first so many photos only")
    parser.add_argument("--threads", type=int, default=0, help="of torch, on the CPU; 0: all")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    train = {
        "batch_size": options.batch_size, "device": options.device, "precision": options.precision,
        "channels_last": options.device != "cpu",
    }  # fmt: skip
    config = Config.model_validate(
        {"data": {"photos": options.photos, "index": "none"}, "model": {"weights": "none"}, "train": train}
    )
    source = open_source(options.photos)
    rows = (
        tuple(
            Row(key, number % 7, key, Split.TRAIN) for number, key in enumerate(list(source.sizes())[: options.limit])
        )
        * options.repeat
    )
    photos = PhotoSet(source, rows)
    augment = None if augments_on_device(config) else AugmentConfig()
    files = PhotoBatches(
        photos, options.batch_size, seed=0, augment=augment, shuffle=True, threads=config.train.readers
    )
    memory = InMemory(photos, options.batch_size, options.device)

    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    model = build(config.model).to(device=options.device, memory_format=layout)
    with TemporaryDirectory() as folder:
        run = Run(config, Path(folder), model, [], files, files, {})
        photos_per_second(run, files, options.device)  # the first round allocates, and fills the page cache
        ratios = []
        for number in range(1, options.rounds + 1):
            fed, bare = (photos_per_second(run, each, options.device) for each in (files, memory))
            ratios.append(fed / bare)
            print(f"round {number}: {fed:.1f} photos/s from files, {bare:.1f} in memory: {ratios[-1]:.1%}", flush=True)
    print(f"median {statistics.median(ratios):.1%}, lowest {min(ratios):.1%}, highest {max(ratios):.1%}")


if __name__ == "__main__":
    main()
