"""Where the network computes, and in which precision."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from trainer.config import TrainConfig


def prepare(config: TrainConfig) -> None:
    """Number of threads, and what makes runs repeatable."""
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)


def autocast(config: TrainConfig) -> torch.autocast:
    """A context in which convolutions and products compute in bf16, if the configuration says so."""
    kind = torch.device(config.device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=config.precision == "bf16")


def hardware(config: TrainConfig) -> str:
    """What the training ran on, in words, for the model's card."""
    if torch.device(config.device).type == "cuda":
        return f"{torch.cuda.get_device_name(config.device)}, {_cpu()}"
    return f"{_cpu()}, {torch.get_num_threads()} threads, no GPU"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
