"""Speed of training steps by memory format, precision and compilation.

    python -m benchmarks.training_step --architecture tf_efficientnet_lite0 --threads 2 --compiled

Measures whole steps (forward, backward, optimiser) on random photos in memory, with all layers trained. The variants
alternate, so that other load on the machine affects all of them. Compilation takes a minute for each variant.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import product

import torch

from trainer.config import ModelConfig, TrainConfig
from trainer.distributed import devices
from trainer.distributed.context import SINGLE_PROCESS
from trainer.models import build
from trainer.train.losses import Loss
from trainer.train.network import Network
from trainer.train.optimiser import create_optimiser
from trainer.train.predict import forward


def make_step(architecture: str, size: int, config: TrainConfig) -> Callable[[], None]:
    """A function that runs one training step of a network with random weights on a batch in memory."""
    options = ModelConfig(architecture=architecture, weights="none")
    model = build(options)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model.train()
    network = Network(model, config, SINGLE_PROCESS, features=False)
    optimiser, loss = create_optimiser(model, [], config), Loss(config, highest=options.highest)
    photos = torch.randint(0, 256, (config.batch_size, size, size, 3), dtype=torch.uint8)
    quantities = torch.arange(config.batch_size) % 7

    def step() -> None:
        loss(forward(network, photos, config), quantities).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def photos_per_second(step: Callable[[], None], photos: int, seconds: float) -> float:
    began, total = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        total += photos
    return total / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--compiled", action="store_true", help="also with torch.compile")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of each variant in each round")
    options = parser.parse_args()

    steps = {}
    for compiled, precision, channels_last in product([False, True], ["fp32", "bf16"], [False, True]):
        if compiled and not options.compiled:
            continue
        config = TrainConfig.model_validate(
            {
                "batch_size": options.batch_size,
                "threads": options.threads,
                "precision": precision,
                "channels_last": channels_last,
                "compile": compiled,
            }
        )
        devices.set_up(config)
        layout = "channels last" if channels_last else "contiguous"
        name = f"{precision}, {layout}{', compiled' if compiled else ''}"
        steps[name] = make_step(options.architecture, options.size, config)
        steps[name]()
    size, batch = options.size, options.batch_size
    rounds = [
        {name: photos_per_second(step, batch, options.seconds) for name, step in steps.items()}
        for _ in range(options.rounds)
    ]
    print(
        f"{options.architecture}, {size}×{size}, batches of {batch}, {torch.get_num_threads()} threads,"
        f" torch {torch.__version__}; medians of {options.rounds} rounds (lowest to highest)"
    )
    for name in steps:
        rates = [each[name] for each in rounds]
        print(f"  {name:<32}{statistics.median(rates):>7.1f} photos/s ({min(rates):.1f} to {max(rates):.1f})")


if __name__ == "__main__":
    main()
