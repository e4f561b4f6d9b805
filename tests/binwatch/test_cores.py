"""Number of usable cores under CPU masks and under the quotas of control groups, versions 1 and 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from binwatch import cores as module
from binwatch.cores import allowed_cores, cpu_quota, usable_cores

VERSION_2 = "30 23 0:26 {root} {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
VERSION_1 = "33 25 0:29 {root} {mount} rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"


def _process(folder: Path, groups: str, mount: str, root: str = "/") -> Path:
    """Write a process folder as in procfs, with its control groups mounted below it."""
    (folder / "fs").mkdir()
    (folder / "cgroup").write_text(groups)
    other = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    (folder / "mountinfo").write_text(other + mount.format(root=root, mount=folder / "fs") + "\n")
    return folder


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"cpu.{name}").write_text(text + "\n")


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000 100000", 1.5), ("max 100000", None), ("50000 100000", 0.5), ("400000 200000", 2)]
)
def test_cgroup_v2_quota(tmp_path: Path, quota: str, expected: float | None) -> None:
    process = _process(tmp_path, "0::/\n", VERSION_2)
    _write(tmp_path / "fs", max=quota)
    assert cpu_quota(process) == expected


def test_the_lowest_quota_of_all_parent_groups_applies(tmp_path: Path) -> None:
    process = _process(tmp_path, "0::/a/b/c\n", VERSION_2)
    _write(tmp_path / "fs" / "a", max="200000 100000")
    _write(tmp_path / "fs" / "a/b", max="max 100000")
    _write(tmp_path / "fs" / "a/b/c", max="700000 100000")
    assert cpu_quota(process) == 2


@pytest.mark.parametrize(("quota", "expected"), [("250000", 2.5), ("-1", None)])
def test_cgroup_v1_quota(tmp_path: Path, quota: str, expected: float | None) -> None:
    process = _process(tmp_path, "9:memory:/docker/1f3a\n4:cpu,cpuacct:/docker/1f3a\n0::/\n", VERSION_1, "/docker/1f3a")
    _write(tmp_path / "fs", cfs_quota_us=quota, cfs_period_us="100000")
    assert cpu_quota(process) == expected


def test_a_container_whose_own_group_is_the_root(tmp_path: Path) -> None:
    process = _process(tmp_path, "4:cpu,cpuacct:/kubepods/pod9/1f3a\n", VERSION_1, "/elsewhere")
    _write(tmp_path / "fs", cfs_quota_us="300000", cfs_period_us="100000")
    assert cpu_quota(process) == 3


def test_without_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "nothing") is None
    assert cpu_quota(_process(tmp_path, "0::/\n", VERSION_2)) is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 4), (2.0, 2), (1.5, 2), (0.2, 1), (64.0, 4)])
def test_cores_are_limited_by_mask_and_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5, 7}, raising=False)
    monkeypatch.setattr(module, "cpu_quota", lambda: quota)
    assert allowed_cores() == [0, 2, 5, 7]
    assert usable_cores() == expected


def test_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no CPU masks, so Python lacks the function."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(module, "cpu_quota", lambda: None)
    assert allowed_cores() == list(range(8))
    assert usable_cores() == 8


ROOT = Path(__file__).parents[2]


def test_cores_are_counted_in_one_place_only() -> None:
    """Another count would ignore the quota or fail on macOS."""
    files = [
        file
        for package in ("benchmarks", "binwatch", "demo", "monitor", "trainer", "worker")
        for file in (ROOT / package).rglob("*.py")
    ]
    asking = {file.relative_to(ROOT).as_posix() for file in files if "cpu_count(" in file.read_text()}
    masks = {file.relative_to(ROOT).as_posix() for file in files if "sched_getaffinity" in file.read_text()}
    assert asking == masks == {"binwatch/cores.py"}
