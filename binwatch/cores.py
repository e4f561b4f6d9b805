"""The cores that this process may use: what its CPU mask and the quotas of its container leave of the machine's."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROCESS = Path("/proc/self")


def cores() -> int:
    """How many threads can compute at a time, at least 1. A quota of one and a half cores keeps two threads at work."""
    allowed = len(core_numbers())
    quota = cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def core_numbers() -> list[int]:
    """Numbers of the cores that the scheduler may put this process on. macOS has no CPU masks."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota(process: Path = _PROCESS) -> float | None:
    """Cores' worth of time that the control groups of this process grant it; None if they set no limit.

    Each group above may set a limit of its own, and the lowest holds. `process` is its folder in procfs.
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
    """The process's own group for CPU time, and those above it as far as they are mounted."""
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
    """Which group is mounted where: of version 2, or of version 1's hierarchy of a controller (proc(5), mountinfo)."""
    for line in mounts:
        before, _, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        kind, *_, options = after.split()
        wanted = kind == "cgroup2" if controller is None else kind == "cgroup" and controller in options.split(",")
        if wanted:
            yield root, mount


def _limit(folder: Path) -> float | None:
    """The limit that one group sets, in cores."""
    try:
        if (folder / "cpu.max").exists():  # "max 100000" or "150000 100000"
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        limit = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
    return limit if limit > 0 else None  # -1: none
