"""The listening socket."""

from __future__ import annotations

import socket

import pytest

from binwatch.errors import BinwatchError
from binwatch.listening import listen


def test_nagles_algorithm_is_disabled() -> None:
    """Without TCP_NODELAY every response is delayed by 40 ms."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BinwatchError) as caught:
            listen("127.0.0.1", port, "take another")
    assert str(caught.value) == f"cannot listen on 127.0.0.1 port {port}: Address already in use; take another"


def test_a_foreign_host_address_is_named() -> None:
    with pytest.raises(BinwatchError, match=r"^cannot listen on 192\.0\.2\.1 port 0: Cannot assign requested address;"):
        listen("192.0.2.1", 0)
