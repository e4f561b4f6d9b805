"""Conclusions from a profile, as sentences with the measured figures."""

from __future__ import annotations

from collections.abc import Iterator

from binwatch.text import count_noun
from trainer.profile.measure import Profile

MAX_WAIT_SHARE = 0.1
"""Share of the training time spent waiting for photos above which training is data-bound."""
MIN_SPEEDUP = 1.1
"""Minimum speed-up of reading for which another number of threads is recommended. A smaller one may be chance."""
MAX_OTHER_PROGRAMS_SHARE = 0.25
"""Share of the cores kept busy by other programs above which the measurement is unreliable."""
FULL_SHARE = 0.9
"""Share of the cores or memory in use above which the machine has none to spare."""


def verdict(profile: Profile) -> list[str]:
    """Describe what limits the training, and how much of the machine it uses."""
    return [
        *_other_programs(profile),
        _limit(profile),
        *_readers(profile),
        _cores(profile),
        _memory(profile),
        *_gpu(profile),
        *_disk(profile),
    ]


def format_speed(photos_per_second: float) -> str:
    """Format a speed as a whole number, or with one decimal below 20."""
    return f"{photos_per_second:,.0f}" if photos_per_second >= 20 else f"{photos_per_second:.1f}"


def is_data_bound(profile: Profile) -> bool:
    """Return whether reading photos limits the training."""
    return profile.wait > MAX_WAIT_SHARE


def _limit(profile: Profile) -> str:
    reading = format_speed(profile.readers[profile.config["train.readers"]])
    what = "photos" if profile.features is None else "features"
    alone = f"the network alone processes {format_speed(profile.network)} a second, reading alone reaches {reading}"
    if is_data_bound(profile):
        return f"data-bound: {profile.wait:.0%} of a step is spent waiting for {what}; {alone}"
    share = profile.training / profile.network
    slowed = f"; reading at the same time slows the network to {share:.0%} of its speed" if share < 1 else ""
    return f"compute-bound: {profile.wait:.0%} of a step is spent waiting for {what}; {alone}{slowed}"


def _readers(profile: Profile) -> Iterator[str]:
    if not is_data_bound(profile) or profile.features is not None:
        return
    configured = profile.config["train.readers"]
    best = max(profile.readers, key=lambda readers: profile.readers[readers])
    if profile.readers[best] > MIN_SPEEDUP * profile.readers[configured]:
        yield (
            f"{count_noun(best, 'reader')} instead of {configured}: {format_speed(profile.readers[best])} photos/s"
            f" alone; try --set train.readers={best}"
        )
    else:
        speeds = ", ".join(f"{readers}: {format_speed(speed)}" for readers, speed in sorted(profile.readers.items()))
        yield f"another number of readers is hardly faster (photos/s by readers: {speeds})"


def _cores(profile: Profile) -> str:
    usage, cores = profile.usage, profile.machine.cores
    full = "; there is none to spare" if usage.busy_cores > FULL_SHARE * cores else ""
    ms_per_photo = 1000 * usage.own_cores * profile.config["processes"] / profile.training
    return (
        f"cores: {usage.busy_cores:.1f} of {cores} were busy, {usage.own_cores:.1f} of them by this process{full};"
        f" a photo takes {ms_per_photo:.1f} ms of processor time"
    )


def _memory(profile: Profile) -> str:
    used, total = profile.usage.memory_gb, profile.machine.memory_gb
    full = "; there is none to spare" if used > FULL_SHARE * total else ""
    return f"memory: at most {used:.1f} of {total:.1f} GB, in this process{full}"


def _gpu(profile: Profile) -> Iterator[str]:
    if not profile.machine.gpu:
        yield "no GPU was used"
        return
    share = profile.usage.gpu
    busy = "utilisation not known (pip install nvidia-ml-py)" if share is None else f"busy {share:.0%} of the time"
    memory = f"at most {profile.usage.gpu_memory_gb:.1f} of {profile.machine.gpu_memory_gb:.1f} GB of its memory"
    yield f"GPU ({profile.machine.gpu}): {busy}; {memory}"


def _disk(profile: Profile) -> Iterator[str]:
    if profile.features is not None:
        yield f"disk: the features of all photos take {profile.views * profile.feature_bytes / 1e9:.2f} GB"
        return
    mb_per_second = profile.training * profile.mean_bytes / 1e6
    total_gb = sum(profile.photos.values()) * profile.mean_bytes / 1e9
    yield f"disk: training reads {mb_per_second:.1f} MB/s of photos; all photos are {total_gb:.2f} GB"
    if total_gb > profile.machine.memory_gb:
        speed = f"{mb_per_second:.1f} MB/s"
        yield f"disk: the photos do not fit into memory, so the disk must read these {speed}, in small files"


def _other_programs(profile: Profile) -> Iterator[str]:
    cores = profile.machine.cores
    busy = profile.usage.busy_cores - profile.usage.own_cores * profile.config["processes"]
    if busy > MAX_OTHER_PROGRAMS_SHARE * cores:
        yield f"NOT A QUIET MACHINE: other programs kept {busy:.1f} of {cores} cores busy; measure again"
