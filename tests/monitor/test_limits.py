"""Probes and scrapes are answered under any number of requests or idle connections."""

from __future__ import annotations

import socket
import threading

import pytest

from monitor import records as module
from monitor.access.limits import MAX_TOTAL_REQUESTS
from monitor.records import MAX_READERS
from tests.monitor.conftest import Running

IDLE_CONNECTIONS = MAX_TOTAL_REQUESTS + 156
"""More connections than the server keeps open."""


def test_idle_connections_do_not_block_others(monitor: Running) -> None:
    address = (monitor.client.base_url.host, monitor.client.base_url.port)
    silent = [socket.create_connection(address) for _ in range(IDLE_CONNECTIONS)]
    try:
        assert monitor.get("/healthz").status_code == 200
        assert monitor.page("/")
    finally:
        for client in silent:
            client.close()


def test_probes_do_not_wait_for_other_requests(monitor: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """All database readers are busy, and the request limit is reached."""
    monkeypatch.setattr(module, "DEADLINE_S", 60.0)
    release, begun = threading.Event(), threading.Semaphore(0)

    def hang(_: object) -> None:
        begun.release()
        release.wait(60)

    busy = [threading.Thread(target=monitor.services.records.read, args=(hang,)) for _ in range(MAX_READERS)]
    for thread in busy:
        thread.start()
    try:
        for _ in busy:
            assert begun.acquire(timeout=30)
        assert monitor.get("/healthz").status_code == 200
        assert monitor.metric("binwatch_records_up") == 1
        monkeypatch.setattr(module, "DEADLINE_S", 0.1)
        assert monitor.browse("/").status_code == 503
    finally:
        release.set()
        for thread in busy:
            thread.join(60)
