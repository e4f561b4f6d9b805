"""Sessions: a cookie that says who signed in and when, and that nobody can make without the token."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from itsdangerous import BadData, Signer, URLSafeTimedSerializer

LIFETIME = timedelta(hours=12)
"""A session lasts a shift."""
_CLOCKS_DIFFER = timedelta(minutes=1)
"""The clock of another monitor that made the cookie may be ahead by this much."""
_MAX_COOKIE = 1_000


@dataclass(frozen=True, slots=True)
class Session:
    """Who signed in. It can be read, but not changed, by the holder of the cookie."""

    id: str
    name: str
    is_approver: bool = False


class SessionCookies:
    """Makes and reads the cookie's values. Another secret ends every session."""

    def __init__(self, secret: bytes) -> None:
        # The library's default digest, SHA-1, is there for values that were signed long ago.
        digest = hashlib.sha256
        self._cookies = URLSafeTimedSerializer(secret, salt="session", signer_kwargs={"digest_method": digest})
        self._forms = Signer(secret, salt="form", digest_method=digest)

    def begin(self, name: str, *, is_approver: bool = False) -> str:
        """Value of the cookie for somebody who has shown the token, or that of approvers."""
        return str(self._cookies.dumps(asdict(Session(secrets.token_urlsafe(12), name, is_approver))))

    def read(self, cookie: str | None) -> Session | None:
        """The session of a cookie; None if the cookie was not made with this secret, was changed, or is too old."""
        if not cookie or len(cookie) > _MAX_COOKIE:
            return None
        try:
            fields, begun = self._cookies.loads(cookie, return_timestamp=True)
            session = Session(**fields)
        except (BadData, TypeError):  # TypeError: signed by another release, which had other fields
            return None
        return session if -_CLOCKS_DIFFER <= datetime.now(UTC) - begun < LIFETIME else None

    def form_token(self, holder: str) -> str:
        """What a form must send back: only a page of this monitor, shown to this holder, can know it."""
        return self._forms.get_signature(holder).decode()

    def is_form_token(self, holder: str, token: str) -> bool:
        """Whether `token` is that of `holder`, compared in constant time."""
        return self._forms.verify_signature(holder, token.encode())
