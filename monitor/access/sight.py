"""Blind audits: whether a reader sees the numbers of bins, and which numbers a browser has been shown.

Whether an audit is blind is decided here, and not by the client. An answer is blind if it has the token of a blind view
of the same bin and photo that was issued to the same auditor, and if the browser has not been shown the numbers of the
bin in the last twelve hours, signed in or not. What the same person has seen in another browser is not tracked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

from fastapi import Request, Response
from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer
from itsdangerous.encoding import base64_decode, base64_encode

from monitor.access.cookies import set_cookie
from monitor.access.sessions import LIFETIME

SHOWN_COOKIE = "binwatch_numbers"
"""Set while a user has chosen to see the numbers. It needs no signature, since SEEN_COOKIE records the bins shown."""
SEEN_COOKIE = "binwatch_seen"
"""Signed list of the bins whose numbers the browser has been shown."""
MAX_SEEN_BINS = 500
"""Maximum number of bins in the cookie, which is limited to 4 KiB. If there are more, all bins count as seen."""
_ALL_BINS = b"*"
_DIGEST_BYTES = 4
"""With 500 bins in the cookie, one in 9 million other bins collides with one of them; its audit is then not blind."""
_MAX_AGE_S = int(LIFETIME.total_seconds())


class Sight(StrEnum):
    """Whether pages show the numbers of bins to their reader."""

    OPEN = "open"
    """All numbers: for scripts, for readers who are not signed in and, with the setting `sighted`, for everybody."""
    BLIND = "blind"
    """No numbers of bins that the reader has not audited yet."""
    SHOWN = "shown"
    """All numbers, since the signed-in reader has chosen to see them."""


@dataclass(frozen=True, slots=True)
class BlindView:
    """A view of a bin without its numbers."""

    holder: str
    """Holder of the view, as in monitor.access.authentication.Writer."""
    bucket: str
    bin_id: str
    photo: int | None
    """Id of the count whose photo the view shows."""


class SightTracker:
    """Signs blind views, and tracks in a cookie which bins' numbers a browser has been shown."""

    def __init__(self, secret: bytes, *, sighted: bool) -> None:
        """`sighted` means that, by the settings, auditors see the numbers before they answer, or nobody can audit."""
        digest = hashlib.sha256
        self._views = URLSafeTimedSerializer(secret, salt="view", signer_kwargs={"digest_method": digest})
        self._seen = TimestampSigner(secret, salt="seen", digest_method=digest)
        self.sighted = sighted

    def sight(self, request: Request, *, is_person: bool) -> Sight:
        """Return what the sender of the request sees; `is_person` means that a user is signed in with a name."""
        if not is_person or self.sighted:
            return Sight.OPEN
        return Sight.SHOWN if SHOWN_COOKIE in request.cookies else Sight.BLIND

    def sign_view(self, view: BlindView) -> str:
        """Return the token of a blind view."""
        return str(self._views.dumps(asdict(view)))

    def is_token_of(self, token: str, view: BlindView) -> bool:
        """Return whether `token` is a valid token of `view` and not older than a session's lifetime."""
        try:
            return bool(BlindView(**self._views.loads(token, max_age=_MAX_AGE_S)) == view)
        except (BadData, TypeError):  # TypeError: signed by a release with other fields
            return False

    def may_audit_blind(self, request: Request, bucket: str, bin_id: str) -> bool:
        """Return whether an answer in a blind view of the bin would be blind: the browser has not seen its numbers."""
        seen = self._seen_bins(request)
        return not self.sighted and seen is not None and _digest(bucket, bin_id) not in seen

    def note_shown(self, request: Request, response: Response, bins: Iterable[tuple[str, str]] | None) -> None:
        """Note that the response shows the numbers of `bins` (bucket, id); None means all bins."""
        if self.sighted:
            return
        seen = self._seen_bins(request)
        if seen is not None:
            seen = None if bins is None else seen.union(_digest(bucket, bin_id) for bucket, bin_id in bins)
        value = _ALL_BINS if seen is None or len(seen) > MAX_SEEN_BINS else base64_encode(b"".join(sorted(seen)))
        set_cookie(request, response, SEEN_COOKIE, self._seen.sign(value).decode())

    def _seen_bins(self, request: Request) -> frozenset[bytes] | None:
        """Return the digests of the bins that the browser has seen; None means all bins."""
        cookie = request.cookies.get(SEEN_COOKIE)
        if not cookie:
            return frozenset()
        try:
            value = self._seen.unsign(cookie, max_age=_MAX_AGE_S)
        except BadData:
            return frozenset()
        if value == _ALL_BINS:
            return None
        digests = base64_decode(value)
        return frozenset(digests[start : start + _DIGEST_BYTES] for start in range(0, len(digests), _DIGEST_BYTES))


def _digest(bucket: str, bin_id: str) -> bytes:
    return hashlib.blake2b(f"{bucket}\n{bin_id}".encode(), digest_size=_DIGEST_BYTES).digest()
