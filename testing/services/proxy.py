"""A TCP proxy that can be told to refuse: how a service behind it looks while it is down."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

_BUFFER = 64 * 1024


class Proxy:
    """Passes connections on to a port of the loopback address, until it refuses them."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = _held(0)
        self.port = int(self._listener.getsockname()[1])

    def serve(self) -> None:
        """Pass connections on from now on."""
        self._listener.listen(128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Break all connections and refuse new ones; the port stays ours meanwhile."""
        with self._lock:
            _break(self._listener)
            self._listener = _held(self.port)
            for one in self._open:
                _break(one)

    def close(self) -> None:
        """Refuse for good."""
        self.refuse()
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with listener, contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._pass_on, args=(client, listener), daemon=True).start()

    def _pass_on(self, client: socket.socket, listener: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            with self._lock:
                if listener is not self._listener:  # refused while this connection was made
                    return
                self._open |= {client, server}
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()
            with self._lock:
                self._open -= {client, server}


def _held(port: int) -> socket.socket:
    """A socket that holds the port without listening: who connects is refused."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    return held


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_BUFFER):
            sink.sendall(data)
    _break(source)
    _break(sink)


def _break(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def s3_proxy(moto_url: str) -> Iterator[Proxy]:
    """A proxy in front of moto's S3."""
    port = urlsplit(moto_url).port
    assert port is not None
    proxy = Proxy(port)
    proxy.serve()
    yield proxy
    proxy.close()
