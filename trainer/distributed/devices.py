"""The device and the precision of the network's computation."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from binwatch.cores import usable_cores
from binwatch.text import count_noun
from trainer.config import TrainConfig
from trainer.display import Display
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext
from trainer.errors import ConfigError


def resolve(config: TrainConfig, display: Display, context: DistributedContext = SINGLE_PROCESS) -> TrainConfig:
    """Return the configuration with the device that train.device=auto selects here. Checkpoints store this device.

    Either all processes use a GPU or none does: a machine without a GPU would take far longer for its shard.
    """
    if config.device != "auto":
        return config
    device = "cuda" if all(context.all_gather(torch.cuda.device_count() > 0)) else "cpu"
    display.say(f"train.device=auto: {device}")
    return config.model_copy(update={"device": device})


def set_up(config: TrainConfig, context: DistributedContext = SINGLE_PROCESS) -> None:
    """Set torch's threads, GPU, algorithms and seed. Raises ConfigError if the GPU is missing."""
    # Torch's default is one thread per core of the machine, even if a container's quota grants fewer.
    torch.set_num_threads(config.threads or min(torch.get_num_threads(), usable_cores()))
    if torch.device(config.device).type == "cuda":
        _set_gpu(config.device, context)
        # Batches have at most two sizes (see Sampler): cuDNN tries all algorithms once per size, and uses the fastest.
        torch.backends.cudnn.benchmark = True
        # TF32 for matrix products that are not in bf16. Convolutions use it by default.
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(config.seed)


def for_inference(config: TrainConfig) -> TrainConfig:
    """Return the configuration for inference: on the CPU if the model was trained on a GPU and there is none here."""
    if torch.device(config.device).type == "cuda" and not torch.cuda.device_count():
        return config.model_copy(update={"device": "cpu"})
    return config


def _set_gpu(device: str, context: DistributedContext) -> None:
    """Select the GPU. With several processes, "cuda" means a different GPU in each."""
    gpus = torch.cuda.device_count()
    if not gpus:
        raise ConfigError(f"train.device={device}: torch sees no GPU here; set train.device=cpu, or check nvidia-smi")
    index = torch.device(device).index
    if context.world_size > 1:
        if index is not None:
            raise ConfigError(f"train.device={device}: with several processes, use cuda; each then takes its own GPU")
        index = context.local_rank
    if index is not None and index >= gpus:
        raise ConfigError(
            f"train.device={device}: this machine has {count_noun(gpus, 'GPU')}, and GPU {index} is not among them"
        )
    torch.cuda.set_device(index or 0)


def autocast(config: TrainConfig) -> torch.autocast:
    """Return a context that computes convolutions and matrix products in bf16 if train.precision is bf16."""
    device_type = torch.device(config.device).type
    return torch.autocast(device_type, dtype=torch.bfloat16, enabled=config.precision == "bf16")


def describe_hardware(config: TrainConfig) -> str:
    """Describe the hardware that the network computes on, for reports and the model's card."""
    if torch.device(config.device).type == "cuda":
        return f"{torch.cuda.get_device_name(config.device)}, {_cpu_name()}"
    return f"{_cpu_name()}, {count_noun(torch.get_num_threads(), 'thread')}, no GPU"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
