"""A monitor that runs in a thread of this process, on a free port of the loopback address."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from binwatch.listening import listen
from binwatch.settings import Settings
from monitor.app import create_app
from monitor.server import MonitorServer, address_of
from monitor.services import Services, make_services


@contextmanager
def serving_monitor(settings: Settings) -> Iterator[tuple[Services, httpx.Client]]:
    """Run a monitor within the context; yields its services and an HTTP client."""
    services = make_services(settings)
    listener = listen("127.0.0.1", 0)
    ready = threading.Event()
    server = MonitorServer(create_app(services), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(30)
        with httpx.Client(base_url=address_of(listener), timeout=60) as client:
            yield services, client
    finally:
        server.should_exit = True
        thread.join(30)
        services.close()
        listener.close()
