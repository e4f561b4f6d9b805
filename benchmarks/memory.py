"""Memory of a process while it counts more and more photos: a worker, or `python -m worker count`.

    python -m benchmarks.memory PHOTOS_FOLDER [--photos 20000] [--versitygw PATH]
    python -m benchmarks.memory PHOTOS_FOLDER --of count

All photos differ in their bytes (by a comment in the file), so each has its own ETag. The worker's photos go through
versitygw, RabbitMQ and PostgreSQL (see benchmarks/services.py), at most a few thousand ahead of it.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.services import ROOT, Servers, find_versitygw, photos_of, running_servers, running_worker

SETTLED = 0.1
"""Share of the photos after which memory must not grow: 2,000 of 20,000."""
SHOWN = (0.1, 0.25, 0.5, 0.75, 1.0)
_LOOK_S = 0.5
_STUCK_S = 120
_AHEAD = 3000
_DIFFERENT = 600  # photos read from the folder; they are repeated
_UPLOADERS = 4
_COM = b"\xff\xfe"  # JPEG's marker of a comment, which follows the marker that begins the file
_START = b"\xff\xd8"


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Memory in bytes after `photos` photos were counted. `pss` has only a proportional part of shared memory."""

    photos: int
    seconds: float
    rss: int
    pss: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--of", choices=("worker", "count"), default="worker")
    parser.add_argument("--versitygw", default=find_versitygw())
    options = parser.parse_args()
    photos = photos_of(options.folder, min(options.photos, _DIFFERENT))
    watch = of_worker if options.of == "worker" else of_count
    show(options.of, watch(photos, options.photos, options.versitygw), options.photos)


def of_worker(photos: list[bytes], number: int, versitygw: str) -> list[MemorySample]:
    """Let a worker count `number` photos that arrive while it runs."""
    with (
        running_servers(versitygw) as servers,
        running_worker() as worker,
        _uploads(servers, photos, number),
    ):
        return follow(worker.process, servers.recorded, number)


def of_count(photos: list[bytes], number: int, _: str) -> list[MemorySample]:
    """Let `python -m worker count` count a folder of `number` photos."""
    with tempfile.TemporaryDirectory(prefix="binwatch-photos-") as folder:
        for n in range(number):
            (Path(folder) / f"{n:06}.jpg").write_bytes(distinct(photos[n % len(photos)], n))
        output = Path(folder) / "counts.csv"
        with output.open("wb") as file:
            command = [sys.executable, "-m", "worker", "count", folder, "--csv"]
            process = subprocess.Popen(command, stdout=file, cwd=ROOT)
        try:
            # Without the table's header line.
            return follow(process.pid, lambda: max(0, output.read_bytes().count(b"\n") - 1), number)
        finally:
            process.terminate()
            process.wait()


def distinct(photo: bytes, number: int) -> bytes:
    """The same photo with other bytes. If it is no JPEG, they are appended, and decoders ignore them."""
    text = f"photo {number}".encode()
    if not photo.startswith(_START):
        return photo + text
    return _START + _COM + (len(text) + 2).to_bytes(2, "big") + text + photo[len(_START) :]


@contextmanager
def _uploads(servers: Servers, photos: list[bytes], number: int) -> Iterator[None]:
    """Upload the photos in threads, at most _AHEAD ahead of the worker, until all are uploaded or the context ends."""
    over = threading.Event()

    def upload(n: int) -> None:
        while n % 100 == 0 and n - servers.recorded() > _AHEAD and not over.wait(0.2):
            pass
        if not over.is_set():
            servers.put(f"bin-images/{n:06}.jpg", distinct(photos[n % len(photos)], n))

    with ThreadPoolExecutor(_UPLOADERS) as pool:
        for n in range(number):
            pool.submit(upload, n)
        try:
            yield
        finally:
            over.set()
            pool.shutdown(cancel_futures=True)


def follow(process: int, counted: Callable[[], int], number: int) -> list[MemorySample]:
    """Sample the memory of the process until all photos are counted. Exits if it stops counting."""
    looks: list[MemorySample] = []
    began = changed = time.monotonic()
    while not looks or looks[-1].photos < number:
        now = time.monotonic()
        photos = counted()
        if photos > (looks[-1].photos if looks else 0):
            changed = now
        elif now - changed > _STUCK_S:
            sys.exit(f"stuck at {photos} of {number} photos for {_STUCK_S} s")
        try:
            rss, pss = held(process)
        except (FileNotFoundError, ProcessLookupError):
            if looks and counted() >= number:  # `count` ends with its last photo
                looks.append(replace(looks[-1], photos=number, seconds=now - began))
                break
            sys.exit(f"the process ended at {photos} of {number} photos")
        looks.append(MemorySample(photos, now - began, rss, pss))
        time.sleep(_LOOK_S)
    return looks


def held(process: int) -> tuple[int, int]:
    """Resident and proportional set size in bytes."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    sizes = {name: int(kb) * 1024 for name, kb in re.findall(r"^(Rss|Pss):\s+(\d+) kB", rollup, re.MULTILINE)}
    if not sizes:
        raise ProcessLookupError(process)  # ended, but not yet waited for
    return sizes["Rss"], sizes["Pss"]


def show(what: str, looks: list[MemorySample], number: int) -> None:
    """Print medians of the samples in the 5 % of the photos before each mark, because single samples vary."""
    last = looks[-1]
    print(f"{what}, {last.photos} photos in {last.seconds:.0f} s ({last.photos / last.seconds:.0f}/s)")
    print(f"{'photos':>8}{'RSS, MB':>10}{'PSS, MB':>10}")
    for share in SHOWN:
        near = _near(looks, share * number, number)
        rss, pss = (statistics.median(getattr(look, name) for look in near) / 1e6 for name in ("rss", "pss"))
        print(f"{share * number:8,.0f}{rss:10,.1f}{pss:10,.1f}")
    mark = SETTLED * number
    settled, end = (statistics.median(look.rss for look in _near(looks, at, number)) for at in (mark, number))
    highest = max(look.rss for look in looks if look.photos >= mark)
    print(f"RSS after the first {mark:,.0f} photos: {end / settled - 1:+.1%}; highest look {highest / 1e6:,.1f} MB")


def _near(looks: list[MemorySample], mark: float, number: int) -> list[MemorySample]:
    return [look for look in looks if mark - number / 20 <= look.photos <= mark] or [
        min(looks, key=lambda look: abs(look.photos - mark))
    ]


if __name__ == "__main__":
    main()
