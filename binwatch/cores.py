"""The cores that this process may use, by its CPU mask and the CPU quota of its container."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROCESS = Path("/proc/self")


def cores() -> int:
    """Number of threads that can run concurrently, at least 1. A quota of 1.5 cores keeps two threads busy."""
    allowed = len(core_numbers())
    quota = cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def core_numbers() -> list[int]:
    """Numbers of the cores on which this process may run. macOS has no CPU masks."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota(process: Path = _PROCESS) -> float | None:
    """CPU quota of this process's control groups, in cores; None if they set no limit.

    Each parent group may have its own limit, and the lowest applies. `process` is the process's folder in procfs.
    """
    try:
        groups = _lines(process / "cgroup")
        mounts = _lines(process / "mountinfo")
    except OSError:  # no Linux, or a sandbox without procfs
        return None
    limits = [limit for folder in _folders(groups, mounts) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()


def _folders(groups: list[str], mounts: list[str]) -> Iterator[Path]:
    """Folders of the process's control group for CPU time, and of its parents as far as they are mounted."""
    for line in groups:  # such as 0::/system.slice/a.service (version 2) or 4:cpu,cpuacct:/docker/1f3a (version 1)
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for root, mount in _mounted(mounts, "cpu" if controllers else None):
            try:
                inside = PurePosixPath(path).relative_to(root)
            except ValueError:  # the path is the host's, while the container sees its own group as the root
                inside = PurePosixPath()
            folder = Path(mount) / inside
            yield from [folder, *folder.parents][: len(inside.parts) + 1]


def _mounted(mounts: list[str], controller: str | None) -> Iterator[tuple[str, str]]:
    """Group and mount point of each cgroup mount: version 2, or a controller's of version 1 (proc(5), mountinfo)."""
    for line in mounts:
        before, _, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        kind, *_, options = after.split()
        wanted = kind == "cgroup2" if controller is None else kind == "cgroup" and controller in options.split(",")
        if wanted:
            yield root, mount


def _limit(folder: Path) -> float | None:
    """The limit of one group, in cores."""
    try:
        if (folder / "cpu.max").exists():  # "max 100000" or "150000 100000"
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        limit = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
    return limit if limit > 0 else None  # -1: no limit
