"""Workers killed or stopped while they count."""

from __future__ import annotations

import random
import time

from tests.faults.conftest import Took
from tests.faults.house import House

KILLS = 10


def test_a_worker_is_killed_ten_times(house: House, took: Took) -> None:
    """SIGKILL at ten moments drawn at random: while a worker starts, takes events in, fetches, counts or records."""
    photos, chance = 1000, random.Random(4)
    house.publish([house.photo(number) for number in range(photos)])
    for kill, threshold in enumerate(sorted(chance.sample(range(photos * 9 // 10), KILLS))):
        worker = house.start(ready=False)
        house.wait_until(lambda threshold=threshold: house.recorded() >= threshold)
        moment = time.monotonic() + chance.uniform(0, 0.1)
        house.wait_until(lambda moment=moment: time.monotonic() >= moment)
        assert house.recorded() < photos, f"all was counted before kill {kill}"
        house.kill(worker)
    left = photos - house.recorded()
    house.start()
    seconds = house.settle()
    house.check()
    took(f"{left} photos left after the last kill, recorded {seconds:.1f} s after a worker was ready again")


def test_a_worker_is_stopped_under_load(house: House, took: Took) -> None:
    """TERM: what is in hand is counted, the rest stays in the queues for the next worker."""
    photos = 300
    house.publish([house.photo(number) for number in range(photos)])
    worker = house.start()
    house.wait_until(lambda: house.recorded() >= 30)
    begun = time.monotonic()
    house.stop(worker)
    stopped = time.monotonic() - begun
    left = photos - house.recorded()
    assert left > 0, "there was no load"
    house.start()
    seconds = house.settle()
    house.check()
    took(
        f"ended after {stopped:.1f} s; the next worker recorded the other {left} photos {seconds:.1f} s after its start"
    )
