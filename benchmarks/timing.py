"""Durations of repeated calls."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def milliseconds(work: Callable[[], object], rounds: int) -> list[float]:
    """Duration of each of `rounds` calls, after an untimed one that fills caches."""
    work()
    durations = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        durations.append(1000 * (time.perf_counter() - began))
    return durations


def p95(durations: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(durations, n=20)[-1]
