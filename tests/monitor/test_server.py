"""The listening socket."""

from __future__ import annotations

import socket

from monitor.server import listen


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """Without TCP_NODELAY every answer is 40 ms late."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
