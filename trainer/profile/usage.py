"""The cores, memory and GPU of a machine, and their usage while something runs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import psutil  # type: ignore[import-untyped]
import torch

from binwatch.cores import allowed_cores, usable_cores

INTERVAL = 0.2
"""Seconds between two samples."""
GB = 1e9


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
    """Mean or peak usage between the beginning and the end of a `UsageWatch`."""

    seconds: float = 0.0
    cores: list[float] = field(default_factory=list)
    """Share of the time that each core of this process's CPU mask was busy, with any process."""
    own_cores: float = 0.0
    """Mean number of cores that this process kept busy."""
    memory_gb: float = 0.0
    """Peak resident memory of this process, including memory-mapped files."""
    gpu: float | None = None
    """Share of the time that the GPU was computing. None: there is no GPU, or NVML does not report it."""
    gpu_memory_gb: float = 0.0

    @property
    def busy_cores(self) -> float:
        """Mean number of busy cores of the machine, with any process."""
        return sum(self.cores)


def machine(device: str) -> Machine:
    """This machine's resources for training on `device`."""
    own, memory = usable_cores(), psutil.virtual_memory().total / GB
    if not _cuda(device):
        return Machine(own, memory, "", 0.0)
    return Machine(own, memory, torch.cuda.get_device_name(), torch.cuda.mem_get_info()[1] / GB)


class UsageWatch:
    """Samples the usage of the machine in a thread while the `with` block runs; `usage` is complete afterwards."""

    def __init__(self, device: str) -> None:
        self.usage = Usage()
        self._cuda = _cuda(device)
        self._gpu_number = torch.cuda.current_device() if self._cuda else 0  # the current device differs by thread
        self._process = psutil.Process()
        self._looks: list[list[float]] = []
        self._gpu: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="usage", daemon=True)

    def __enter__(self) -> UsageWatch:
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        self._began, self._cpu = time.perf_counter(), self._cpu_seconds()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._began
        self._ended.set()
        self._thread.join()
        used = self.usage
        used.seconds = seconds
        used.cores = [sum(core) / len(core) / 100 for core in zip(*self._looks, strict=True)]
        used.own_cores = (self._cpu_seconds() - self._cpu) / seconds
        if self._gpu:
            used.gpu = sum(self._gpu) / len(self._gpu) / 100
        if self._cuda:
            used.gpu_memory_gb = torch.cuda.max_memory_reserved() / GB

    def _look(self) -> None:
        """Take samples until the end, and a last one then."""
        own = allowed_cores()
        psutil.cpu_percent(percpu=True)  # a thread's first call only starts the measurement
        ended = False
        while not ended:
            ended = self._ended.wait(INTERVAL)
            shares = psutil.cpu_percent(percpu=True)
            self._looks.append([shares[core] for core in own])
            self.usage.memory_gb = max(self.usage.memory_gb, self._process.memory_info().rss / GB)
            if self._cuda and (share := _gpu_share(self._gpu_number)) is not None:
                self._gpu.append(share)

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


def _gpu_share(number: int) -> float | None:
    try:
        return float(torch.cuda.utilization(number))
    except (ImportError, RuntimeError, OSError):  # nvidia-ml-py is not installed, or the driver does not report it
        return None


def _cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"
