"""A worker that receives no tasks although some are waiting is unhealthy until it receives one."""

from __future__ import annotations

import pytest

from worker import starvation as starvation_module
from worker.starvation import ConsumerStalled, StarvationCheck


class Clock:
    """A manually advanced clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(starvation_module, "time", clock)
    return clock


@pytest.fixture
def idle(clock: Clock) -> StarvationCheck:
    return StarvationCheck(limit_s=60)


def check_for(idle: StarvationCheck, clock: Clock, seconds: int, **depths: int) -> None:
    for _ in range(seconds // 15):
        idle.observe(depths)
        clock.now += 15


def test_waiting_tasks_without_delivery_are_starvation(idle: StarvationCheck, clock: Clock) -> None:
    check_for(idle, clock, 60, tasks=7)
    idle.check()
    check_for(idle, clock, 15, tasks=8)
    with pytest.raises(ConsumerStalled, match="8 tasks wait, and none was received for 75 s; restart the worker"):
        idle.check()
    with idle.track_task():
        idle.check()
    check_for(idle, clock, 60, tasks=8)
    idle.check()


def test_empty_and_unknown_queues_are_healthy(idle: StarvationCheck, clock: Clock) -> None:
    check_for(idle, clock, 60, tasks=1)
    check_for(idle, clock, 600, tasks=0)
    idle.check()
    check_for(idle, clock, 600)
    idle.check()
    check_for(idle, clock, 600, events=5)
    idle.check()


def test_long_task_is_not_starvation(idle: StarvationCheck, clock: Clock) -> None:
    with idle.track_task():
        check_for(idle, clock, 600, tasks=9)
        idle.check()
    check_for(idle, clock, 60, tasks=9)
    idle.check()


def test_occasional_tasks_are_enough(idle: StarvationCheck, clock: Clock) -> None:
    for _ in range(10):
        check_for(idle, clock, 45, tasks=9)
        with idle.track_task():
            pass
        idle.check()
