"""The device and the precision of the network's computation."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from binwatch.cores import cores
from binwatch.text import many
from trainer.config import TrainConfig
from trainer.display import Display
from trainer.distributed.context import SINGLE_PROCESS, DistributedContext
from trainer.errors import ConfigError


def chosen(config: TrainConfig, display: Display, context: DistributedContext = SINGLE_PROCESS) -> TrainConfig:
    """The configuration with the device that train.device=auto selects, which checkpoints store.

    Either all processes use a GPU or none does: a machine without one would take far longer for its share.
    """
    if config.device != "auto":
        return config
    device = "cuda" if all(context.all_gather(torch.cuda.device_count() > 0)) else "cpu"
    display.say(f"train.device=auto: {device}")
    return config.model_copy(update={"device": device})


def prepare(config: TrainConfig, context: DistributedContext = SINGLE_PROCESS) -> None:
    """Set the number of threads, the GPU and its algorithms, and the seed. Raises ConfigError if the GPU is missing."""
    # Torch's default is a thread for each core of the machine, even if a container's quota grants fewer.
    torch.set_num_threads(config.threads or min(torch.get_num_threads(), cores()))
    if torch.device(config.device).type == "cuda":
        _choose_gpu(config.device, context)
        # Batches have two sizes at most (see Sampler): cuDNN tries all algorithms once for each, and uses the fastest.
        torch.backends.cudnn.benchmark = True
        # TF32 for matrix products that are not in bf16. Convolutions use it by default.
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(config.seed)


def for_inference(config: TrainConfig) -> TrainConfig:
    """The configuration for inference: on the CPU if the model was trained on a GPU and this machine has none."""
    if torch.device(config.device).type == "cuda" and not torch.cuda.device_count():
        return config.model_copy(update={"device": "cpu"})
    return config


def _choose_gpu(device: str, context: DistributedContext) -> None:
    """Select the GPU. With several processes, "cuda" means another GPU in each."""
    found = torch.cuda.device_count()
    if not found:
        raise ConfigError(f"train.device={device}: torch sees no GPU here; set train.device=cpu, or check nvidia-smi")
    wanted = torch.device(device).index
    if context.world_size > 1:
        if wanted is not None:
            raise ConfigError(f"train.device={device}: with several processes, use cuda; each then takes its own GPU")
        wanted = context.local_rank
    if wanted is not None and wanted >= found:
        raise ConfigError(
            f"train.device={device}: this machine has {many(found, 'GPU')}, and GPU {wanted} is not among them"
        )
    torch.cuda.set_device(wanted or 0)


def autocast(config: TrainConfig) -> torch.autocast:
    """A context in which convolutions and matrix products compute in bf16 if train.precision is bf16."""
    kind = torch.device(config.device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=config.precision == "bf16")


def hardware(config: TrainConfig) -> str:
    """The hardware of the training, for the model's card."""
    if torch.device(config.device).type == "cuda":
        return f"{torch.cuda.get_device_name(config.device)}, {_cpu()}"
    return f"{_cpu()}, {many(torch.get_num_threads(), 'thread')}, no GPU"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
