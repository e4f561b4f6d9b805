"""The cores, memory and GPU of this machine, and their usage during a measurement."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import psutil  # type: ignore[import-untyped]
import torch

from binwatch.cores import allowed_cores, usable_cores

SAMPLE_INTERVAL_S = 0.2
"""Seconds between two samples of the usage."""
GB = 1e9
"""Bytes in a gigabyte."""


@dataclass(frozen=True)
class Machine:
    """A machine's resources."""

    cores: int
    memory_gb: float
    gpu: str
    """Name of the GPU, or empty."""
    gpu_memory_gb: float


@dataclass
class Usage:
    """Mean or peak usage during a `UsageWatch`."""

    seconds: float = 0.0
    cores: list[float] = field(default_factory=list)
    """For each core of this process's CPU mask, the share of time in which it was busy with any process."""
    own_cores: float = 0.0
    """Mean number of cores that this process kept busy."""
    memory_gb: float = 0.0
    """Peak resident memory of this process in GB, including memory-mapped files."""
    gpu: float | None = None
    """Share of time in which the GPU was computing. None: there is no GPU, or NVML does not report it."""
    gpu_memory_gb: float = 0.0

    @property
    def busy_cores(self) -> float:
        """Mean number of cores that were busy with any process."""
        return sum(self.cores)


def machine(device: str) -> Machine:
    """Return this machine's resources for training on `device`."""
    n_cores, memory_gb = usable_cores(), psutil.virtual_memory().total / GB
    if not _is_cuda(device):
        return Machine(n_cores, memory_gb, "", 0.0)
    return Machine(n_cores, memory_gb, torch.cuda.get_device_name(), torch.cuda.mem_get_info()[1] / GB)


class UsageWatch:
    """Samples the machine's usage on a thread during a `with` block. `usage` is complete when the block ends."""

    def __init__(self, device: str) -> None:
        self.usage = Usage()
        self._cuda = _is_cuda(device)
        self._gpu_index = torch.cuda.current_device() if self._cuda else 0  # each thread has its own current device
        self._process = psutil.Process()
        self._core_samples: list[list[float]] = []
        """For each sample, the percentage of each core."""
        self._gpu_samples: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._take_samples, name="usage", daemon=True)

    def __enter__(self) -> UsageWatch:
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        self._start, self._cpu_start = time.perf_counter(), self._cpu_seconds()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._start
        self._ended.set()
        self._thread.join()
        usage = self.usage
        usage.seconds = seconds
        usage.cores = [sum(core) / len(core) / 100 for core in zip(*self._core_samples, strict=True)]
        usage.own_cores = (self._cpu_seconds() - self._cpu_start) / seconds
        if self._gpu_samples:
            usage.gpu = sum(self._gpu_samples) / len(self._gpu_samples) / 100
        if self._cuda:
            usage.gpu_memory_gb = torch.cuda.max_memory_reserved() / GB

    def _take_samples(self) -> None:
        """Take samples until the block has ended, and then a last one."""
        own_cores = allowed_cores()
        psutil.cpu_percent(percpu=True)  # a thread's first call only starts the measurement
        ended = False
        while not ended:
            ended = self._ended.wait(SAMPLE_INTERVAL_S)
            percentages = psutil.cpu_percent(percpu=True)
            self._core_samples.append([percentages[core] for core in own_cores])
            self.usage.memory_gb = max(self.usage.memory_gb, self._process.memory_info().rss / GB)
            if self._cuda and (percentage := _gpu_percentage(self._gpu_index)) is not None:
                self._gpu_samples.append(percentage)

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


def _gpu_percentage(index: int) -> float | None:
    try:
        return float(torch.cuda.utilization(index))
    except (ImportError, RuntimeError, OSError):  # nvidia-ml-py is not installed, or the driver does not report it
        return None


def _is_cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"
