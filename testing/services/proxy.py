"""A TCP proxy that can refuse connections, as if the service behind it were down."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

_BUFFER = 64 * 1024


class Proxy:
    """Forwards connections to a port of the loopback address, unless it is told to refuse them."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = _bound_socket(0)
        self.port = int(self._listener.getsockname()[1])

    def serve(self) -> None:
        """Forward connections from now on."""
        self._listener.listen(128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Break all connections and refuse new ones. The port stays reserved."""
        with self._lock:
            _shut_down(self._listener)
            self._listener = _bound_socket(self.port)
            for connection in self._open:
                _shut_down(connection)

    def close(self) -> None:
        """Refuse connections and release the port."""
        self.refuse()
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with listener, contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._forward, args=(client, listener), daemon=True).start()

    def _forward(self, client: socket.socket, listener: socket.socket) -> None:
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


def _bound_socket(port: int) -> socket.socket:
    """A socket that is bound to the port but does not listen, so that connections are refused."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_BUFFER):
            sink.sendall(data)
    _shut_down(source)
    _shut_down(sink)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def s3_proxy(moto_url: str) -> Iterator[Proxy]:
    """A proxy in front of moto's S3."""
    port = urlsplit(moto_url).port
    assert port is not None
    proxy = Proxy(port)
    proxy.serve()
    yield proxy
    proxy.close()
