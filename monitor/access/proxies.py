"""Trusted reverse proxies: which requests they sent, and the path that they publish the monitor under."""

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
"""Plain names, or a header could lead to another host ("//host") or out of the folder ("/..")."""


class TrustedProxies:
    """Addresses and networks of BINWATCH_MONITOR_PROXIES. Raises SettingsError if one is invalid."""

    def __init__(self, settings: Settings) -> None:
        parts = [part.strip() for part in settings.monitor_proxies.split(",") if part.strip()]
        try:
            self._networks = [ipaddress.ip_network(part) for part in parts]
        except ValueError as error:
            raise SettingsError(
                f"BINWATCH_MONITOR_PROXIES: {error}; write addresses or networks, as 10.0.0.0/8"
            ) from error

    def sent(self, asked: HTTPConnection) -> bool:
        """Whether one of them forwarded the request."""
        try:
            peer = ipaddress.ip_address(asked.client.host if asked.client else "")
        except ValueError:
            return False
        return any(peer in network for network in self._networks)


class PublishedPath:
    """Wraps an app that is published under a path of its own, as /binwatch; whether the proxy takes it away or not.

    The path is that of the settings, else the one in a trusted proxy's header. ASGI's `root_path` then has it, and
    `path` begins with it.
    """

    def __init__(self, app: ASGIApp, settings: Settings, proxies: TrustedProxies) -> None:
        """Raises SettingsError if the path of the settings is invalid."""
        self._app = app
        self._proxies = proxies
        self._fixed = (settings.monitor_root_path or "").rstrip("/")
        if self._fixed and not _PREFIX.fullmatch(self._fixed):
            raise SettingsError(
                f"BINWATCH_MONITOR_ROOT_PATH: {settings.monitor_root_path!r} is not a path; write one like /binwatch"
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] == "http" and (root := self._fixed or self._said(scope)):
            path = scope["path"]
            rest = path.removeprefix(root) if path == root or path.startswith(f"{root}/") else path
            scope = {**scope, "root_path": root, "path": root + (rest or "/")}
        await self._app(scope, receive, send)

    def _said(self, scope: Scope) -> str:
        said = [value for name, value in scope["headers"] if name == PREFIX_HEADER]
        if len(said) != 1 or not self._proxies.sent(HTTPConnection(scope)):
            return ""
        root = said[0].decode("latin-1").strip().rstrip("/")
        return root if _PREFIX.fullmatch(root) else ""


def root_of(asked: HTTPConnection) -> str:
    """The beginning of every address on a page; "" unless the monitor is published under a path of its own."""
    # A mounted app has a root path of its own; Starlette keeps that of the whole.
    root: str = asked.scope.get("app_root_path", asked.scope.get("root_path", ""))
    return root


def path_of(asked: HTTPConnection) -> str:
    """The path within the monitor."""
    path: str = asked.scope["path"]
    return path.removeprefix(root_of(asked))
