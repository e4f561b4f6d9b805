"""Processor time and memory of a process and all its descendants, sampled while they run."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from pathlib import Path

from benchmarks.command_cost import descendants, memory

_SAMPLE_INTERVAL_S = 0.2
_SAMPLES_PER_MEMORY_SAMPLE = 10  # reading memory walks every page table, which slows the measured processes
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12  # fields of /proc/PID/stat after the name (proc(5): utime and stime)


class ProcessCost:
    """Samples `process` and its descendants in a thread, from now until `total` is called.

    Processor time between the last sample and the end of a process is missed, up to 0.2 seconds for each process.
    """

    def __init__(self, process: int) -> None:
        self._root = process
        self._before = _seconds(descendants(process))
        self._seconds = dict(self._before)
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def total(self) -> tuple[float, int]:
        """Stop sampling. Returns the processor time in seconds, and the peak memory of all processes in bytes."""
        self._stopped.set()
        self._thread.join()
        return sum(self._seconds.values()) - sum(self._before.values()), self._peak

    def _watch(self) -> None:
        for sample in itertools.count():
            if self._stopped.wait(_SAMPLE_INTERVAL_S):
                return
            processes = descendants(self._root)
            self._seconds |= _seconds(processes)
            if sample % _SAMPLES_PER_MEMORY_SAMPLE == 0:
                self._peak = max(self._peak, memory(processes))


def _seconds(processes: set[int]) -> dict[int, float]:
    seconds = {}
    for process in processes:
        with contextlib.suppress(OSError):  # it may have ended
            seconds[process] = processor_seconds(process)
    return seconds


def processor_seconds(process: int) -> float:
    """Processor time of the process so far in seconds, without its descendants."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS_PER_S
