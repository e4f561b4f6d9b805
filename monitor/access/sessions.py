"""Sessions: a signed cookie with the user's name and the time of signing in. It cannot be forged without the token."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from itsdangerous import BadData, Signer, URLSafeTimedSerializer

LIFETIME = timedelta(hours=12)
"""Lifetime of a session: one shift."""
_MAX_CLOCK_SKEW = timedelta(minutes=1)
"""Maximum time by which the clock of another monitor that made the cookie may be ahead."""
_MAX_COOKIE_LENGTH = 1_000


@dataclass(frozen=True, slots=True)
class Session:
    """Session of a signed-in user. The holder of the cookie can read it, but not change it."""

    id: str
    name: str
    is_approver: bool = False


class SessionCookies:
    """Creates and reads session cookies. Changing the secret ends every session."""

    def __init__(self, secret: bytes) -> None:
        # Not the library's default, SHA-1, which it keeps for compatibility with old signatures.
        digest = hashlib.sha256
        self._cookies = URLSafeTimedSerializer(secret, salt="session", signer_kwargs={"digest_method": digest})
        self._forms = Signer(secret, salt="form", digest_method=digest)

    def create(self, name: str, *, is_approver: bool = False) -> str:
        """Create a session and return its cookie value."""
        return str(self._cookies.dumps(asdict(Session(secrets.token_urlsafe(12), name, is_approver))))

    def read(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie; None if the signature is invalid or the session has expired."""
        if not cookie or len(cookie) > _MAX_COOKIE_LENGTH:
            return None
        try:
            fields, created_at = self._cookies.loads(cookie, return_timestamp=True)
            session = Session(**fields)
        except (BadData, TypeError):  # TypeError: signed by a release with other fields
            return None
        return session if -_MAX_CLOCK_SKEW <= datetime.now(UTC) - created_at < LIFETIME else None

    def form_token(self, holder: str) -> str:
        """Return the token that a form must send back. Only pages shown to `holder` contain it."""
        return self._forms.get_signature(holder).decode()

    def is_form_token(self, holder: str, token: str) -> bool:
        """Return whether `token` is the form token of `holder`, in constant time."""
        return self._forms.verify_signature(holder, token.encode())
