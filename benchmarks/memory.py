"""Memory of a process over the number of counted photos: a worker, or `python -m worker count`.

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

SETTLED_SHARE = 0.1
"""Share of the photos after which memory must not grow: 2,000 of 20,000."""
REPORTED_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
_SAMPLE_INTERVAL_S = 0.5
_STUCK_S = 120
_MAX_UPLOADS_AHEAD = 3000
_SOURCE_PHOTOS = 600  # read from the folder, and repeated
_UPLOAD_THREADS = 4
_START_MARKER, _COMMENT_MARKER = b"\xff\xd8", b"\xff\xfe"  # of a JPEG


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Memory in bytes after `photos` photos were counted: resident and proportional set size."""

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
    photos = photos_of(options.folder, min(options.photos, _SOURCE_PHOTOS))
    sample = sample_worker if options.of == "worker" else sample_count_command
    show(options.of, sample(photos, options.photos, options.versitygw), options.photos)


def sample_worker(photos: list[bytes], total: int, versitygw: str) -> list[MemorySample]:
    """Let a worker count `total` photos that arrive while it runs."""
    with (
        running_servers(versitygw) as servers,
        running_worker() as worker,
        _uploads(servers, photos, total),
    ):
        return follow(worker.process, servers.recorded, total)


def sample_count_command(photos: list[bytes], total: int, _: str) -> list[MemorySample]:
    """Let `python -m worker count` count a folder of `total` photos."""
    with tempfile.TemporaryDirectory(prefix="binwatch-photos-") as folder:
        for n in range(total):
            (Path(folder) / f"{n:06}.jpg").write_bytes(distinct(photos[n % len(photos)], n))
        output = Path(folder) / "counts.csv"
        with output.open("wb") as file:
            command = [sys.executable, "-m", "worker", "count", folder, "--csv"]
            process = subprocess.Popen(command, stdout=file, cwd=ROOT)
        try:
            # Subtract the header line.
            return follow(process.pid, lambda: max(0, output.read_bytes().count(b"\n") - 1), total)
        finally:
            process.terminate()
            process.wait()


def distinct(photo: bytes, index: int) -> bytes:
    """The photo with distinct bytes: in a comment, or appended if it is not a JPEG, where decoders ignore them."""
    text = f"photo {index}".encode()
    if not photo.startswith(_START_MARKER):
        return photo + text
    return _START_MARKER + _COMMENT_MARKER + (len(text) + 2).to_bytes(2, "big") + text + photo[len(_START_MARKER) :]


@contextmanager
def _uploads(servers: Servers, photos: list[bytes], total: int) -> Iterator[None]:
    """Upload photos in threads until the context ends, at most _MAX_UPLOADS_AHEAD ahead of the worker."""
    stopped = threading.Event()

    def upload(n: int) -> None:
        while n % 100 == 0 and n - servers.recorded() > _MAX_UPLOADS_AHEAD and not stopped.wait(0.2):
            pass
        if not stopped.is_set():
            servers.put(f"bin-images/{n:06}.jpg", distinct(photos[n % len(photos)], n))

    with ThreadPoolExecutor(_UPLOAD_THREADS) as pool:
        for n in range(total):
            pool.submit(upload, n)
        try:
            yield
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)


def follow(process: int, counted: Callable[[], int], total: int) -> list[MemorySample]:
    """Sample the memory of the process until all photos are counted. Exits if it stops counting."""
    samples: list[MemorySample] = []
    began = changed = time.monotonic()
    while not samples or samples[-1].photos < total:
        now = time.monotonic()
        photos = counted()
        if photos > (samples[-1].photos if samples else 0):
            changed = now
        elif now - changed > _STUCK_S:
            sys.exit(f"stuck at {photos} of {total} photos for {_STUCK_S} s")
        try:
            rss, pss = process_memory(process)
        except (FileNotFoundError, ProcessLookupError):
            if samples and counted() >= total:  # `count` ends with its last photo
                samples.append(replace(samples[-1], photos=total, seconds=now - began))
                break
            sys.exit(f"the process ended at {photos} of {total} photos")
        samples.append(MemorySample(photos, now - began, rss, pss))
        time.sleep(_SAMPLE_INTERVAL_S)
    return samples


def process_memory(process: int) -> tuple[int, int]:
    """Resident and proportional set size in bytes."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    sizes = {name: int(kb) * 1024 for name, kb in re.findall(r"^(Rss|Pss):\s+(\d+) kB", rollup, re.MULTILINE)}
    if not sizes:
        raise ProcessLookupError(process)  # a zombie
    return sizes["Rss"], sizes["Pss"]


def show(title: str, samples: list[MemorySample], total: int) -> None:
    """Print medians of the samples in the 5 % of the photos before each mark, because single samples vary."""
    last = samples[-1]
    print(f"{title}, {last.photos} photos in {last.seconds:.0f} s ({last.photos / last.seconds:.0f}/s)")
    print(f"{'photos':>8}{'RSS, MB':>10}{'PSS, MB':>10}")
    for share in REPORTED_SHARES:
        near = _near(samples, share * total, total)
        rss, pss = (statistics.median(getattr(sample, name) for sample in near) / 1e6 for name in ("rss", "pss"))
        print(f"{share * total:8,.0f}{rss:10,.1f}{pss:10,.1f}")
    mark = SETTLED_SHARE * total
    settled, end = (statistics.median(sample.rss for sample in _near(samples, count, total)) for count in (mark, total))
    highest = max(sample.rss for sample in samples if sample.photos >= mark)
    print(f"RSS after the first {mark:,.0f} photos: {end / settled - 1:+.1%}; highest sample {highest / 1e6:,.1f} MB")


def _near(samples: list[MemorySample], mark: float, total: int) -> list[MemorySample]:
    return [sample for sample in samples if mark - total / 20 <= sample.photos <= mark] or [
        min(samples, key=lambda sample: abs(sample.photos - mark))
    ]


if __name__ == "__main__":
    main()
