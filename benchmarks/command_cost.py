"""Wall time and peak memory of a command and all its descendant processes.

Memory is the sum of their proportional set sizes (shared memory counts once), sampled ten times a second.

    python benchmarks/command_cost.py make demo
    UNTIL="metadata files" python benchmarks/command_cost.py make demo   # also the time until a line contains this text
    taskset -c 0,1 python benchmarks/command_cost.py make demo           # as on a machine with two cores
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

_SAMPLE_INTERVAL_S = 0.1


def descendants(root: int) -> set[int]:
    """Process ids of `root` and all its descendants."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    family = {root}
    while added := {child for child, parent in parents.items() if parent in family} - family:
        family |= added
    return family


def memory(processes: set[int]) -> int:
    """Sum of the proportional set sizes of the processes, in bytes."""
    total = 0
    for process in processes:
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            if match := re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE):
                total += int(match[1]) * 1024
    return total


def echo(lines: Iterable[str], until: str, started: float) -> None:
    """Print the output, and the time until the first line that contains `until`."""
    reached = False
    for line in lines:
        sys.stdout.write(line)
        if until in line and not reached:
            reached = True
            print(f"{until!r} after {time.perf_counter() - started:.1f} s")


def main() -> None:
    if not sys.argv[1:]:
        sys.exit(__doc__)
    started = time.perf_counter()
    until = os.environ.get("UNTIL")
    output = subprocess.PIPE if until else None
    process = subprocess.Popen(sys.argv[1:], stdout=output, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    if until:
        threading.Thread(target=echo, args=(process.stdout, until, started), daemon=True).start()
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(descendants(process.pid)))
        time.sleep(_SAMPLE_INTERVAL_S)
    seconds = time.perf_counter() - started
    print(f"{' '.join(sys.argv[1:])}: {seconds:.1f} s, peak {peak / 1e6:,.0f} MB, exit status {process.returncode}")
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
