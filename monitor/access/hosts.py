"""Check of the Host header, which protects the monitor from DNS rebinding.

A web site can let its own name resolve to 127.0.0.1, so that its pages can read the monitor. Requests for unknown host
names are therefore refused. IP addresses are accepted, since they cannot be rebound.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from monitor.access.refusals import refuse

_MAX_PORT = 65_535


class HostCheck:
    """ASGI middleware that answers 421 to requests for an unknown host name."""

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = {"localhost", *(name.strip().lower().rstrip(".") for name in names if name.strip())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] == "http":
            hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            name = parse_host(hosts[0]) if len(hosts) == 1 else None
            if name is None:
                await refuse(scope, receive, send, 400, "a request names exactly one host; send a Host header")
                return
            if not self._is_allowed(name):
                detail = f"the host name {name[:100]!r} is not allowed; add it to BINWATCH_MONITOR_HOSTS"
                await refuse(scope, receive, send, 421, detail)
                return
        await self._app(scope, receive, send)

    def _is_allowed(self, name: str) -> bool:
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


def parse_host(host: str) -> str | None:
    """Return the name in a Host header, in lower case and without the port; None if the header is invalid."""
    name, colon, port = host.strip().lower().rpartition(":")
    if not colon or (name.startswith("[") and not name.endswith("]")):  # no port, or a colon within an IPv6 address
        name, port = host.strip().lower(), "0"
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= _MAX_PORT):
        return None
    name = name.rstrip(".")
    if not name or any(character.isspace() or character in "/@?#\\%" for character in name):
        return None
    return name
