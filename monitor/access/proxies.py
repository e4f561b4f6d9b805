"""Trusted reverse proxies, and the path under which they publish the monitor."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from binwatch.errors import SettingsError
from binwatch.settings import Settings

PREFIX_HEADER: Final = b"x-forwarded-prefix"
_PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")
"""Only plain names: other values of the header could lead to another host ("//host") or to a parent folder ("/..")."""


class TrustedProxies:
    """Addresses and networks of BINWATCH_MONITOR_PROXIES. Raises SettingsError if one of them is invalid."""

    def __init__(self, settings: Settings) -> None:
        parts = [part.strip() for part in settings.monitor_proxies.split(",") if part.strip()]
        try:
            self._networks = [ipaddress.ip_network(part) for part in parts]
        except ValueError as error:
            raise SettingsError(
                f"BINWATCH_MONITOR_PROXIES: {error}; write addresses or networks, as 10.0.0.0/8"
            ) from error

    def forwarded(self, connection: HTTPConnection) -> bool:
        """Return whether a trusted proxy forwarded the request."""
        try:
            peer = ipaddress.ip_address(connection.client.host if connection.client else "")
        except ValueError:
            return False
        return any(peer in network for network in self._networks)


class PublishedPath:
    """ASGI middleware for an app that is published under a path such as /binwatch.

    The path comes from the settings, or else from the header of a trusted proxy. The app finds it in ASGI's `root_path`
    and at the start of `path`, whether or not the proxy removes it from the requests that it forwards.
    """

    def __init__(self, app: ASGIApp, settings: Settings, proxies: TrustedProxies) -> None:
        """Raises SettingsError if the path of the settings is invalid."""
        self._app = app
        self._proxies = proxies
        self._configured = (settings.monitor_root_path or "").rstrip("/")
        if self._configured and not _PREFIX.fullmatch(self._configured):
            raise SettingsError(
                f"BINWATCH_MONITOR_ROOT_PATH: {settings.monitor_root_path!r} is not a path; write one like /binwatch"
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] == "http" and (root := self._configured or self._from_header(scope)):
            path = scope["path"]
            rest = path.removeprefix(root) if path == root or path.startswith(f"{root}/") else path
            scope = {**scope, "root_path": root, "path": root + (rest or "/")}
        await self._app(scope, receive, send)

    def _from_header(self, scope: Scope) -> str:
        values = [value for name, value in scope["headers"] if name == PREFIX_HEADER]
        if len(values) != 1 or not self._proxies.forwarded(HTTPConnection(scope)):
            return ""
        root = values[0].decode("latin-1").strip().rstrip("/")
        return root if _PREFIX.fullmatch(root) else ""


def root_path_of(connection: HTTPConnection) -> str:
    """Return the path under which the monitor is published, without a final slash; "" if it has none."""
    # A mounted app has its own root path; Starlette keeps that of the outer app in app_root_path.
    root: str = connection.scope.get("app_root_path", connection.scope.get("root_path", ""))
    return root


def relative_path(connection: HTTPConnection) -> str:
    """Return the path of the request relative to the published path."""
    path: str = connection.scope["path"]
    return path.removeprefix(root_path_of(connection))
