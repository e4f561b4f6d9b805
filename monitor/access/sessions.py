"""Sessions: a cookie that says who signed in and when, and that nobody can make without the token."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

LIFETIME = timedelta(hours=12)
"""A session lasts a shift."""
_MAX_COOKIE = 1_000


@dataclass(frozen=True, slots=True)
class Session:
    """Who signed in. Nothing of it is secret, and nothing of it can be changed by whoever holds the cookie."""

    id: str
    name: str
    begun: int
    """Unix time in seconds."""


class Sessions:
    """Makes and reads the cookie's values. Another token ends every session."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def begin(self, name: str) -> str:
        """Value of the cookie for somebody who has shown the token."""
        session = Session(secrets.token_urlsafe(12), name, int(datetime.now(UTC).timestamp()))
        told = _encoded(json.dumps(asdict(session), ensure_ascii=False).encode())
        return f"{told}.{self._sign('session', told)}"

    def read(self, cookie: str | None) -> Session | None:
        """The session of a cookie; None if it is not ours, was changed, or is over."""
        if not cookie or len(cookie) > _MAX_COOKIE or not cookie.isascii():
            return None
        told, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature, self._sign("session", told)):
            return None
        try:
            session = Session(**json.loads(base64.urlsafe_b64decode(told + "=" * (-len(told) % 4))))
        except (ValueError, TypeError, binascii.Error):
            return None  # of another release
        if not session.name:
            return None
        age = datetime.now(UTC).timestamp() - session.begun
        return session if age + 60 >= 0 and age < LIFETIME.total_seconds() else None

    def form_token(self, holder: str) -> str:
        """What a form must send back: only a page of ours, shown to this holder, can know it."""
        return self._sign("form", holder)

    def _sign(self, purpose: str, text: str) -> str:
        return _encoded(hmac.new(self._secret, f"{purpose}:{text}".encode(), hashlib.sha256).digest())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
