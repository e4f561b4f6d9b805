"""Conclusions from the measurements, as sentences with the measured figures."""

from __future__ import annotations

from collections.abc import Iterator

from binwatch.text import count_noun
from trainer.profile.measure import Profile

WAITS = 0.1
"""Share of the time spent waiting for photos above which training is data-bound."""
BETTER = 1.1
"""Factor by which reading must be faster with another number of threads to recommend it: less may be chance."""
OTHERS = 0.25
"""Share of the cores kept busy by other programs above which the measurement is disturbed."""
FULL = 0.9
"""Share of the cores, or of the memory, above which the machine has none to spare."""


def verdict(found: Profile) -> list[str]:
    """The limit of the training, and the usage of the machine."""
    said = [*_others(found), _limit(found), *_readers(found), _cores(found), _memory(found)]
    return [*said, *_gpu(found), *_disk(found)]


def speed(photos_per_second: float) -> str:
    """A speed with significant digits only."""
    return f"{photos_per_second:,.0f}" if photos_per_second >= 20 else f"{photos_per_second:.1f}"


def data_bound(found: Profile) -> bool:
    """Whether reading photos limits the training."""
    return found.wait > WAITS


def _limit(found: Profile) -> str:
    read = found.readers[found.config["train.readers"]]
    what = "photos" if found.features is None else "features"
    alone = f"the network alone processes {speed(found.network)} a second, reading alone reaches {speed(read)}"
    if data_bound(found):
        return f"data-bound: {found.wait:.0%} of a step is spent waiting for {what}; {alone}"
    share = found.training / found.network
    slowed = f"; reading at the same time slows the network to {share:.0%} of its speed" if share < 1 else ""
    return f"compute-bound: {found.wait:.0%} of a step is spent waiting for {what}; {alone}{slowed}"


def _readers(found: Profile) -> Iterator[str]:
    if not data_bound(found) or found.features is not None:
        return
    own = found.config["train.readers"]
    best = max(found.readers, key=lambda readers: found.readers[readers])
    if found.readers[best] > BETTER * found.readers[own]:
        yield (
            f"{count_noun(best, 'reader')} instead of {own}: {speed(found.readers[best])} photos/s alone; try"
            f" --set train.readers={best}"
        )
    else:
        tried = ", ".join(f"{readers}: {speed(each)}" for readers, each in sorted(found.readers.items()))
        yield f"another number of readers is hardly faster (photos/s by readers: {tried})"


def _cores(found: Profile) -> str:
    used, cores = found.usage, found.machine.cores
    full = "; there is none to spare" if used.busy_cores > FULL * cores else ""
    each = 1000 * used.own_cores * found.config["processes"] / found.training
    return (
        f"cores: {used.busy_cores:.1f} of {cores} were busy, {used.own_cores:.1f} of them by this process{full};"
        f" a photo takes {each:.1f} ms of processor time"
    )


def _memory(found: Profile) -> str:
    used, there = found.usage.memory_gb, found.machine.memory_gb
    full = "; there is none to spare" if used > FULL * there else ""
    return f"memory: at most {used:.1f} of {there:.1f} GB, in this process{full}"


def _gpu(found: Profile) -> Iterator[str]:
    if not found.machine.gpu:
        yield "no GPU was used"
        return
    share = found.usage.gpu
    busy = "utilisation not known (pip install nvidia-ml-py)" if share is None else f"busy {share:.0%} of the time"
    memory = f"at most {found.usage.gpu_memory_gb:.1f} of {found.machine.gpu_memory_gb:.1f} GB of its memory"
    yield f"GPU ({found.machine.gpu}): {busy}; {memory}"


def _disk(found: Profile) -> Iterator[str]:
    if found.features is not None:
        yield f"disk: the features of all photos take {found.views * found.feature_bytes / 1e9:.2f} GB"
        return
    needs = found.training * found.mean_bytes / 1e6
    whole = sum(found.photos.values()) * found.mean_bytes / 1e9
    yield f"disk: training reads {needs:.1f} MB/s of photos; all photos are {whole:.2f} GB"
    if whole > found.machine.memory_gb:
        yield f"disk: the photos do not fit into memory, so the disk must read these {needs:.1f} MB/s, in small files"


def _others(found: Profile) -> Iterator[str]:
    other = found.usage.busy_cores - found.usage.own_cores * found.config["processes"]
    if other > OTHERS * found.machine.cores:
        yield f"NOT A QUIET MACHINE: other programs kept {other:.1f} of {found.machine.cores} cores busy; measure again"
