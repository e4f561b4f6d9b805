"""What a process and all that it starts cost: processor time and memory, looked at while they run."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from benchmarks.command_cost import descendants, memory

_LOOK_S = 0.2
_WEIGH_EVERY = 10  # looks: weighing makes the kernel walk every page table, which would slow what is measured
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12  # fields of /proc/PID/stat behind the name (proc(5): utime and stime)


class Cost:
    """Watches `process` and what it starts, on a thread, from now until it is asked for the result.

    What a process used after the last look before its end is missed: up to a fifth of a second each.
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
        """Stop watching. Seconds of processor time, and the most bytes that all held together at any look."""
        self._over.set()
        self._thread.join()
        return sum(self._seconds.values()) - sum(self._before.values()), self._peak

    def _watch(self) -> None:
        look = 0
        while not self._over.wait(_LOOK_S):
            found = descendants(self._root)
            self._seconds |= _seconds(found)
            if look % _WEIGH_EVERY == 0:
                self._peak = max(self._peak, memory(found))
            look += 1


def _seconds(processes: set[int]) -> dict[int, float]:
    found = {}
    for process in processes:
        with contextlib.suppress(OSError):  # it may have ended
            found[process] = processor_seconds(process)
    return found


def processor_seconds(process: int) -> float:
    """What the process itself used so far, without those that it started."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS_PER_S
