"""Processor time and memory of a process and all processes that it starts, sampled while they run."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from benchmarks.command_cost import descendants, memory

_LOOK_S = 0.2
_MEMORY_EVERY = 10  # samples: for the memory, the kernel walks every page table, which slows the measured processes
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12  # fields of /proc/PID/stat after the name (proc(5): utime and stime)


class ProcessCost:
    """Samples `process` and the processes that it starts, in a thread, from now until `total` is called.

    The processor time between the last sample and the end of a process is missed: up to 0.2 seconds for each.
    """

    def __init__(self, process: int) -> None:
        self._root = process
        self._before = _seconds(descendants(process))
        self._seconds = dict(self._before)
        self._peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def total(self) -> tuple[float, int]:
        """Stop sampling. Returns seconds of processor time, and the peak of the memory of all processes in bytes."""
        self._over.set()
        self._thread.join()
        return sum(self._seconds.values()) - sum(self._before.values()), self._peak

    def _watch(self) -> None:
        look = 0
        while not self._over.wait(_LOOK_S):
            found = descendants(self._root)
            self._seconds |= _seconds(found)
            if look % _MEMORY_EVERY == 0:
                self._peak = max(self._peak, memory(found))
            look += 1


def _seconds(processes: set[int]) -> dict[int, float]:
    found = {}
    for process in processes:
        with contextlib.suppress(OSError):  # it may have ended
            found[process] = processor_seconds(process)
    return found


def processor_seconds(process: int) -> float:
    """Processor time of the process itself so far, without the processes that it started."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS_PER_S
