"""Workers that are killed or stopped while they count."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path

import pytest

from binwatch.errors import Reason
from testing.brightness import brightness_of, jpeg
from tests.faults.conftest import Took
from tests.faults.stack import Stack, Worker, announcement
from worker.brokers.choice import choose_queues
from worker.tasks import MAX_CRASHES

KILLS = 10


def test_worker_killed_ten_times(stack: Stack, took: Took) -> None:
    """SIGKILL at ten random moments: while a worker starts, receives events, fetches, counts or records."""
    photos, chance = 1000, random.Random(4)
    stack.publish([stack.photo(number) for number in range(photos)])
    for kill, threshold in enumerate(sorted(chance.sample(range(photos * 9 // 10), KILLS))):
        worker = stack.start(ready=False)
        stack.wait_until(lambda threshold=threshold: stack.recorded() >= threshold)
        moment = time.monotonic() + chance.uniform(0, 0.1)
        stack.wait_until(lambda moment=moment: time.monotonic() >= moment)
        assert stack.recorded() < photos, f"all was counted before kill {kill}"
        stack.kill(worker)
    left = photos - stack.recorded()
    stack.start()
    seconds = stack.settle()
    stack.check()
    took(f"{left} photos left after the last kill, recorded {seconds:.1f} s after a worker was ready again")


def test_worker_stopped_under_load(stack: Stack, took: Took) -> None:
    """SIGTERM: photos in flight are counted, and the rest stays in the queues for the next worker."""
    photos = 300
    stack.publish([stack.photo(number) for number in range(photos)])
    worker = stack.start()
    stack.wait_until(lambda: stack.recorded() >= 30)
    began = time.monotonic()
    stack.stop(worker)
    stop_s = time.monotonic() - began
    left = photos - stack.recorded()
    assert left > 0, "there was no load"
    stack.start()
    seconds = stack.settle()
    stack.check()
    took(
        f"ended after {stop_s:.1f} s; the next worker recorded the other {left} photos {seconds:.1f} s after its start"
    )


WORKER_THAT_DIES_OF_POISON = """
import os, sys
from binwatch import bundle
from worker.__main__ import main

load_photo = bundle.load_photo

def die(data, **options):
    if data.endswith(b"poison"):
        os._exit(9)
    return load_photo(data, **options)

bundle.load_photo = die
sys.argv = ["worker", "run"]
main()
"""


@pytest.mark.timeout(600)  # a worker starts fourteen times, maybe on a busy machine
def test_photo_crashes_every_worker(stack: Stack, took: Took) -> None:
    """The photo is recorded as failed and dead-lettered alone, and reconcile does not send it again.

    It is counted once the cause is fixed and it is put back into its queue.
    """
    bodies = [stack.photo(number) for number in range(60)]
    key, deadly = "bin-images/poison.jpg", jpeg(brightness_of(3), side=32) + b"poison"
    bodies.insert(30, announcement(stack.s3.bucket, key, stack.s3.put(key, deadly)))
    stack.publish(bodies)
    began, deaths = time.monotonic(), 0
    while (worker := stack.start(ready=False, program=WORKER_THAT_DIES_OF_POISON)) and dies_of_photo(stack, worker):
        deaths += 1
    photo = key, hashlib.md5(deadly).hexdigest()
    stack.counted[photo] = Reason.CRASHED
    stack.settle()
    seconds = time.monotonic() - began
    (letter,) = stack.dead_letters()
    assert letter.reason == f"{MAX_CRASHES} workers crashed while processing only this"
    assert key in letter.body
    assert stack.reconcile().startswith("sent 0 ")
    assert sum(queue.redrive() for queue in choose_queues(stack.settings).dead_letters()) == 1
    stack.counted[photo] = 3
    stack.failed_before.append(Reason.CRASHED)
    stack.start()
    stack.settle()
    stack.check()
    took(f"dead-lettered after {deaths} crashes, the other 60 photos recorded by then ({seconds:.1f} s with restarts)")


def dies_of_photo(stack: Stack, worker: Worker) -> bool:
    """Whether the worker dies before the photo is dead-lettered."""
    stack.workers.remove(worker)  # it may end by itself
    dead = stack.settings.task_queue + "-dead"
    log = Path(stack.folder / f"worker-{stack.started - 1}.log")
    stack.wait_until(
        lambda: worker.poll() is not None or (" ready." in log.read_text(errors="replace") and stack.waiting(dead) == 1)
    )
    if worker.poll() is None:
        stack.workers.append(worker)
    return worker.poll() is not None
