"""Finds the cores that this process may use, as limited by its CPU mask and its container's CPU quota."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROC_SELF = Path("/proc/self")


def usable_cores() -> int:
    """Return the number of threads that can run concurrently, at least 1. A quota of 1.5 cores allows two threads."""
    allowed = len(allowed_cores())
    quota = cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def allowed_cores() -> list[int]:
    """Return the ids of the cores in this process's CPU mask; of all cores on macOS, which has no CPU masks."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota(process: Path = _PROC_SELF) -> float | None:
    """Return the CPU quota of this process's control groups, in cores; None without a limit.

    Each parent group may have its own limit, and the lowest applies. `process` is the process's folder in procfs.
    """
    try:
        groups = _read_lines(process / "cgroup")
        mounts = _read_lines(process / "mountinfo")
    except OSError:  # not Linux, or a sandbox without procfs
        return None
    limits = [limit for folder in _cgroup_folders(groups, mounts) if (limit := _cpu_limit(folder)) is not None]
    return min(limits, default=None)


def _read_lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()


def _cgroup_folders(groups: list[str], mounts: list[str]) -> Iterator[Path]:
    """Yield the folders of the process's control group for CPU time and of its parents, as far as they are mounted."""
    for line in groups:  # such as 0::/system.slice/a.service (version 2) or 4:cpu,cpuacct:/docker/1f3a (version 1)
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for root, mount_point in _cgroup_mounts(mounts, "cpu" if controllers else None):
            try:
                relative = PurePosixPath(path).relative_to(root)
            except ValueError:  # the path is the host's, while the container sees its own group as the root
                relative = PurePosixPath()
            folder = Path(mount_point) / relative
            yield from [folder, *folder.parents][: len(relative.parts) + 1]


def _cgroup_mounts(mounts: list[str], controller: str | None) -> Iterator[tuple[str, str]]:
    """Yield (root group, mount point) of each cgroup mount (proc(5), mountinfo).

    `controller`: a controller of version 1; None for version 2.
    """
    for line in mounts:
        before, _, after = line.partition(" - ")
        root, mount_point = before.split()[3:5]
        kind, *_, options = after.split()
        if kind == "cgroup2" if controller is None else kind == "cgroup" and controller in options.split(","):
            yield root, mount_point


def _cpu_limit(folder: Path) -> float | None:
    """Return the CPU limit of one control group, in cores; None without a limit."""
    try:
        if (folder / "cpu.max").exists():  # "max 100000" or "150000 100000"
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        limit = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
    return limit if limit > 0 else None  # -1: no limit
