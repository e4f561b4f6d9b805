"""Throughput and latency from the bucket to the record, compared with the machine's limit on the same photos.

Starts versitygw, RabbitMQ, PostgreSQL and the workers on this machine (see benchmarks/services.py for what to install;
the database runs without fsync). The photos are uploaded first, so their events wait in RabbitMQ. Then the workers
start, and the rate is measured from their first record to their last. The limit is measured before and after: all
photos are decoded on every core, and then inferred, from memory to memory. At the end, single photos are uploaded to
the idle system, and the time to their records is measured.

    python -m benchmarks.bucket_to_record PHOTOS_FOLDER [--photos 2000] [--model BUNDLE] [--workers N]
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from benchmarks.command_cost import descendants
from benchmarks.cost import processor_seconds
from benchmarks.count_files import limit
from benchmarks.services import RunningWorker, Servers, find_versitygw, photos_of, running_servers, running_worker
from binwatch.bundle import Bundle
from binwatch.cores import usable_cores
from binwatch.records.tables import Count
from binwatch.settings import DEFAULT_MODEL
from binwatch.text import count_noun
from worker.engine import Engine
from worker.metrics import PhotoStage

TIMEOUT_S = 600
SINGLE_PHOTOS = 50
CORES = usable_cores()
# Names of the servers' processes; RabbitMQ runs in Erlang's.
PROGRAMS = {"versitygw": "versitygw (S3)", "beam.smp": "RabbitMQ", "postgres": "PostgreSQL"}
WORKER, BENCHMARK, OTHER = "worker", "this benchmark, looking", "idle, or other programs"


@dataclass(frozen=True, slots=True)
class Limit:
    """Seconds to decode and infer all photos in memory, and their processor time."""

    seconds: float
    processor_s: float


@dataclass(frozen=True, slots=True)
class Throughput:
    """Photos, seconds and processor time by program, from the first record to the last.

    `watched_s` is the wall time over which processor time was measured. `stages` has the number and the total seconds
    of each of the workers' stages since their start, `batch` the mean number of photos in a batch.
    """

    photos: int
    seconds: float
    processor_s: Mapping[str, float]
    watched_s: float
    stages: Mapping[PhotoStage, tuple[int, float]]
    batch: float


def main() -> None:
    options = _options()
    photos = photos_of(options.folder, options.photos)
    with running_servers(options.versitygw, options.model) as servers:
        engine = Engine(Bundle(servers.settings.model_dir))
        engine.warm_up()
        upload_all(servers, photos)
        before = measure_limit(engine, photos, servers.settings.batch_size)
        with ExitStack() as stack:
            threads = str(max(CORES // options.workers, 1))
            workers = [
                stack.enter_context(running_worker(BINWATCH_INFERENCE_THREADS=threads)) for _ in range(options.workers)
            ]
            throughput = measure_throughput(servers, workers, len(photos))
            after = measure_limit(engine, photos, servers.settings.batch_size)
            latencies = [record_latency(servers, photo) for photo in photos[: options.single]]
    print(
        f"{count_noun(len(photos), 'photo')}, {count_noun(options.workers, 'worker')}, {count_noun(CORES, 'core')},"
        f" {engine.card.version}, {engine.precision}, {engine.provider}"
    )
    show_rates(len(photos), before, after, throughput)
    show_stages(throughput)
    show_processor_time(throughput, (before.processor_s + after.processor_s) / 2 / len(photos))
    show_latencies(latencies)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=2000, help="photos of the folder are repeated if there are fewer")
    parser.add_argument("--single", type=int, default=SINGLE_PHOTOS, help="photos uploaded one at a time, at the end")
    parser.add_argument("--workers", type=int, default=1, help="number of worker processes, which share the cores")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="folder of a bundle")
    parser.add_argument("--versitygw", default=find_versitygw())
    return parser.parse_args()


def upload_all(servers: Servers, photos: list[bytes]) -> None:
    """Upload all photos, each under its own key."""
    with ThreadPoolExecutor(8) as pool:
        keys = (f"bin-images/{n:06}.jpg" for n in range(len(photos)))
        list(pool.map(servers.put, keys, photos))


def measure_limit(engine: Engine, photos: list[bytes], batch: int) -> Limit:
    """Measure the machine's limit."""
    processor = time.process_time()
    seconds = sum(limit(engine, photos, batch))
    return Limit(seconds, time.process_time() - processor)


def measure_throughput(servers: Servers, workers: Sequence[RunningWorker], photos: int) -> Throughput:
    """Wait until all photos are recorded, and measure the throughput."""
    wait_for(servers, 1)
    began, before = time.perf_counter(), processor_s_by_program(workers)
    wait_for(servers, photos)
    watched, after = time.perf_counter() - began, processor_s_by_program(workers)
    with servers.database.connect() as connection:
        first, last = connection.execute(select(func.min(Count.recorded_at), func.max(Count.recorded_at))).one()
        first_batch = connection.scalar(select(func.count()).where(Count.recorded_at == first))
    processor_s = {program: after[program] - before[program] for program in after}
    stages, batch = scrape(workers)
    return Throughput(
        photos - int(first_batch or 0), (last - first).total_seconds(), processor_s, watched, stages, batch
    )


def wait_for(servers: Servers, photos: int) -> None:
    """Wait until `photos` photos are recorded. Exits at a deadline."""
    deadline = time.monotonic() + TIMEOUT_S
    while (recorded := servers.recorded()) < photos:
        if time.monotonic() > deadline:
            sys.exit(f"only {recorded} of {photos} photos were recorded within {TIMEOUT_S} s")
        time.sleep(0.2)


def processor_s_by_program(workers: Sequence[RunningWorker]) -> Counter[str]:
    """Processor time so far by program, in seconds, of this process and all its descendants."""
    seconds: Counter[str] = Counter()
    worker_pids = {worker.process for worker in workers}
    for process in descendants(os.getpid()):
        with suppress(OSError):  # it may have ended
            name = (Path("/proc") / str(process) / "comm").read_text().strip()
            program = WORKER if process in worker_pids else PROGRAMS.get(name, BENCHMARK)
            seconds[program] += processor_seconds(process)
    return seconds


def scrape(workers: Sequence[RunningWorker]) -> tuple[dict[PhotoStage, tuple[int, float]], float]:
    """From the workers' metrics: number and total seconds by stage, and the mean number of photos in a batch."""
    values: Counter[str] = Counter()
    for worker in workers:
        for name, value in re.findall(r"^(\S+) (\S+)$", worker.scrape(), re.MULTILINE):
            values[name] += float(value)

    def count_and_sum(name: str, label: str = "") -> tuple[int, float]:
        return int(values[f"{name}_count{label}"]), values[f"{name}_sum{label}"]

    stages = {stage: count_and_sum("binwatch_worker_stage_seconds", f'{{stage="{stage}"}}') for stage in PhotoStage}
    batches, photos = count_and_sum("binwatch_worker_batch_photos")
    return stages, photos / batches


def record_latency(servers: Servers, photo: bytes) -> float:
    """Seconds from the end of one upload to its record, on an idle system."""
    key = f"bin-images/{uuid.uuid4().hex}.jpg"
    servers.put(key, photo)
    started = time.perf_counter()
    while True:
        with servers.database.connect() as connection:
            if connection.scalar(select(Count.id).where(Count.key == key)) is not None:
                return time.perf_counter() - started
        if time.perf_counter() - started > TIMEOUT_S:
            sys.exit(f"{key} was not recorded within {TIMEOUT_S} s")
        time.sleep(0.005)


def show_rates(photos: int, before: Limit, after: Limit, throughput: Throughput) -> None:
    limits = [photos / each.seconds for each in (before, after)]
    rate, best = throughput.photos / throughput.seconds, statistics.mean(limits)
    print(f"limit in memory      {best:7.1f} photos/s ({limits[0]:.1f} before, {limits[1]:.1f} after)")
    print(f"bucket to record     {rate:7.1f} photos/s, {rate / best:.1%} of the limit")


def show_stages(throughput: Throughput) -> None:
    print(
        "\nthe workers' stages (they overlap; a batch waits for its turn,"
        f" and has {throughput.batch:.1f} photos on average)"
    )
    print(f"{'':<10}{'times':>8}{'mean, ms':>10}{'seconds in all':>16}")
    for stage, (times, seconds) in throughput.stages.items():
        print(f"{stage:<10}{times:8}{1000 * seconds / max(times, 1):10.1f}{seconds:16.1f}")


def show_processor_time(throughput: Throughput, limit_s: float) -> None:
    total = CORES * throughput.watched_s
    shares = {**throughput.processor_s, OTHER: total - sum(throughput.processor_s.values())}
    print(f"\nwhere {CORES} cores × {throughput.watched_s:.1f} s went")
    for program, seconds in sorted(shares.items(), key=lambda share: -share[1]):
        print(
            f"{program:<26}{seconds:8.1f} s{seconds / total:8.1%}{1000 * seconds / throughput.photos:8.1f} ms a photo"
        )
    print(f"{'(limit in memory':<26}{'':18}{1000 * limit_s:8.1f} ms a photo)")


def show_latencies(seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    print(f"\none photo, idle system, {len(ordered)} times, from its upload's end to its record")
    print(
        f"{ordered[0]:.3f} s at least, {statistics.median(ordered):.3f} s median, {p95:.3f} s 95th percentile, ",
        end="",
    )
    print(f"{ordered[-1]:.3f} s at most")


if __name__ == "__main__":
    main()
