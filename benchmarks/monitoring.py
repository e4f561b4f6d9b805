"""A monitor that serves the records of a database on this machine, and the timing of requests to it."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from binwatch.listening import listen
from binwatch.settings import Settings
from monitor.app import create_app
from monitor.server import MonitorServer, address_of
from monitor.services import Services, make_services


@contextmanager
def running_monitor(settings: Settings) -> Iterator[tuple[Services, httpx.Client]]:
    """The monitor's services, with drift figures, and a client of its HTTP server."""
    services = make_services(settings)
    listener = listen("127.0.0.1", 0)
    ready = threading.Event()
    server = MonitorServer(create_app(services), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        ready.wait(30)
        services.drift.update()
        with httpx.Client(base_url=address_of(listener), timeout=60) as client:
            yield services, client
    finally:
        server.should_exit = True
        thread.join(30)
        services.close()


def milliseconds(work: Callable[[], object], rounds: int) -> list[float]:
    """Duration of each of `rounds` calls, after one that is not timed, because it fills caches."""
    work()
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - began))
    return found


def p95(durations: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(durations, n=20)[-1]
