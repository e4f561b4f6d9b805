"""What a machine has, and how much of it is used while something runs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import psutil  # type: ignore[import-untyped]
import torch

from binwatch.cores import core_numbers, cores

INTERVAL = 0.2
"""Seconds between two looks."""
GB = 1e9


@dataclass(frozen=True)
class Machine:
    """What there is."""

    cores: int
    memory_gb: float
    gpu: str
    """Name, or empty."""
    gpu_memory_gb: float


@dataclass
class Usage:
    """What was used, on average or at most, between the beginning and the end of a `UsageWatch`."""

    seconds: float = 0.0
    cores: list[float] = field(default_factory=list)
    """Share of the time that each core that this process may use was busy, whoever used it."""
    own_cores: float = 0.0
    """How many cores this process kept busy."""
    memory_gb: float = 0.0
    """At most, of this process: also the photos' files that it maps."""
    gpu: float | None = None
    """Share of the time that the GPU computed anything at all. None: there is none, or NVML cannot be asked."""
    gpu_memory_gb: float = 0.0

    @property
    def busy_cores(self) -> float:
        """How many cores of the machine were busy, whoever used them."""
        return sum(self.cores)


def machine(device: str) -> Machine:
    """What there is for a training on `device`."""
    own, memory = cores(), psutil.virtual_memory().total / GB
    if not _cuda(device):
        return Machine(own, memory, "", 0.0)
    return Machine(own, memory, torch.cuda.get_device_name(), torch.cuda.mem_get_info()[1] / GB)


class UsageWatch:
    """Looks at the machine from a thread of its own while the `with` block runs; `usage` is complete afterwards."""

    def __init__(self, device: str) -> None:
        self.usage = Usage()
        self._cuda = _cuda(device)
        self._gpu_number = torch.cuda.current_device() if self._cuda else 0  # which is another in another thread
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
        """Until the end, and once then."""
        own = core_numbers()
        psutil.cpu_percent(percpu=True)  # a thread's first call only remembers when it was
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
    except (ImportError, RuntimeError, OSError):  # the package nvidia-ml-py is not there, or the driver says nothing
        return None


def _cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"
