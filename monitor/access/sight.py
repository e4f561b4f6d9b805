"""Blind audits: who has the numbers of bins in sight, and which bins' numbers a browser has been shown.

Whether an audit was blind is decided here and never by what a request says of itself. An answer is blind if it comes
with the token of a view without numbers, of this very bin and photo, that this auditor was given, and if the browser
has not been shown the bin's numbers in the twelve hours before, signed in or not. What the same person has seen in
another browser cannot be known.
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
"""Set while a user wants to see the numbers. Needs no signature: which bins were shown is in SEEN_COOKIE."""
SEEN_COOKIE = "binwatch_seen"
MOST = 500
"""Bins that a browser's cookie names at most, of 4 KiB. A browser that has seen more counts as having seen all."""
_EVERYTHING = b"*"
_DIGEST = 4
"""Bytes. With 500 bins in the cookie, one in 9 million others is taken for one of them; its audit is then not blind."""
_AGE = int(LIFETIME.total_seconds())


class Sight(StrEnum):
    """What pages show to their reader."""

    OPEN = "open"
    """All numbers, for readers who are not signed in and for scripts; with the setting `sighted`, for everybody."""
    BLIND = "blind"
    """No number of a bin that the reader has not audited yet."""
    SHOWN = "shown"
    """All numbers, since somebody who is signed in asked for them."""


@dataclass(frozen=True, slots=True)
class View:
    """A view of a bin without its numbers, given to somebody."""

    holder: str
    bucket: str
    bin_id: str
    photo: int | None
    """Id of the count whose photo it shows."""


class Sights:
    """Signs views and what was seen, and reads them back."""

    def __init__(self, secret: bytes, *, sighted: bool) -> None:
        """`sighted`: by the settings, auditors see the numbers first, or nobody can audit."""
        digest = hashlib.sha256
        self._views = URLSafeTimedSerializer(secret, salt="view", signer_kwargs={"digest_method": digest})
        self._seen = TimestampSigner(secret, salt="seen", digest_method=digest)
        self.sighted = sighted

    def of(self, request: Request, *, is_person: bool) -> Sight:
        """What the sender of the request is shown; `is_person`: somebody who is signed in."""
        if not is_person or self.sighted:
            return Sight.OPEN
        return Sight.SHOWN if SHOWN_COOKIE in request.cookies else Sight.BLIND

    def begin(self, view: View) -> str:
        """The token of a view."""
        return str(self._views.dumps(asdict(view)))

    def is_of(self, token: str, view: View) -> bool:
        """Whether a token is that of this view, and not older than a shift."""
        try:
            return bool(View(**self._views.loads(token, max_age=_AGE)) == view)
        except (BadData, TypeError):  # TypeError: signed by another release, which had other fields
            return False

    def was_blind(self, request: Request, bucket: str, bin_id: str) -> bool:
        """Whether an answer that is given now is blind, if it was given in a view without numbers."""
        seen = self._seen_bins(request)
        return not self.sighted and seen is not None and _digest(bucket, bin_id) not in seen

    def note(self, request: Request, response: Response, bins: Iterable[tuple[str, str]] | None) -> None:
        """Note that the numbers of these bins (bucket, id), or of all, are shown to the browser."""
        seen, new = self._seen_bins(request), None if bins is None else frozenset(_digest(*one) for one in bins)
        if self.sighted:
            return
        both = None if new is None or seen is None else seen | new
        value = _EVERYTHING if both is None or len(both) > MOST else base64_encode(b"".join(sorted(both)))
        set_cookie(request, response, SEEN_COOKIE, self._seen.sign(value).decode())

    def _seen_bins(self, request: Request) -> frozenset[bytes] | None:
        """Digests of bins; None is all of them."""
        cookie = request.cookies.get(SEEN_COOKIE)
        if not cookie:
            return frozenset()
        try:
            value = self._seen.unsign(cookie, max_age=_AGE)
        except BadData:
            return frozenset()
        if value == _EVERYTHING:
            return None
        every = base64_decode(value)
        return frozenset(every[start : start + _DIGEST] for start in range(0, len(every), _DIGEST))


def _digest(bucket: str, bin_id: str) -> bytes:
    return hashlib.blake2b(f"{bucket}\n{bin_id}".encode(), digest_size=_DIGEST).digest()
