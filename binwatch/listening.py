"""Opens TCP sockets for the servers of the worker and the monitor."""

from __future__ import annotations

import ipaddress
import socket

from binwatch.errors import BinwatchError


def listen(host: str, port: int, advice: str = "choose another port") -> socket.socket:
    """Open a listening socket; port 0 means any free port. Raises BinwatchError, whose message ends with `advice`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]  # Python appends the address
        raise BinwatchError(f"cannot listen on {host} port {port}: {reason}; {advice}") from error
    # Connections inherit the option; asyncio sets it only on sockets with an explicit protocol. Without it, each
    # response waits 40 ms for the client to acknowledge its headers (Nagle's algorithm and delayed ACKs).
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Return whether only this machine can reach the socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback
