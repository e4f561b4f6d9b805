"""Authentication of requests that write: by the token, by a session, or by a trusted reverse proxy's user."""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request

from binwatch.errors import BinwatchError, SettingsError
from binwatch.records.audits import clean_name
from binwatch.settings import AuditView, Settings
from monitor.access.proxies import TrustedProxies
from monitor.access.sessions import SessionCookies
from monitor.access.sight import Sight, Sights, View

logger = logging.getLogger(__name__)

COOKIE = "binwatch_session"
_SAME_SITE = {"same-origin", "none"}
"""Values of Sec-Fetch-Site for requests from the monitor's own pages, and from the address bar."""


class WritingOff(BinwatchError):
    """Entering audits is off; set BINWATCH_MONITOR_TOKEN to a secret of 16 characters or more to turn it on."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class NotSignedIn(BinwatchError):
    """Entering audits needs the token: as `Authorization: Bearer …`, or sign in at /login."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class WrongToken(BinwatchError):
    """That is not the token; it is the value of BINWATCH_MONITOR_TOKEN where the monitor was started."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class NotApprover(BinwatchError):
    """The sender of a request is no approver."""

    def __init__(self) -> None:
        super().__init__(
            "Only approvers may do this: sign in with, or send, the value of BINWATCH_MONITOR_APPROVER_TOKEN; of users"
            " whom a proxy names, the header BINWATCH_MONITOR_ROLE_HEADER says who is one."
        )


class NoName(BinwatchError):
    """A name has 1 to 100 characters, all of them printable; it is kept with each audit."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class ForeignForm(BinwatchError):
    """The form was too old, or another web site sent it; reload the page and try again."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class NumbersHidden(BinwatchError):
    """This shows counts and expected quantities of bins that you may have to audit; choose "Show the numbers" first."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class Credential(StrEnum):
    """How a request proved that it may write."""

    TOKEN = "token"  # noqa: S105 (a word, no secret)
    SESSION = "session"
    PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class Writer:
    """An authenticated user, or a script with the token."""

    how: Credential
    name: str | None
    """None for a script with the token, which names the auditor in each audit."""
    holder: str
    """The session, user or script that form tokens are made for."""
    is_approver: bool = False
    """Whether it may decide on variances."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a page may offer to its reader."""

    is_on: bool
    """Whether writing is configured; if not, WritingOff says how to configure it."""
    writer: Writer | None
    """None: not signed in."""
    form_token: str
    """For the hidden field `csrf` of every form; empty if not signed in."""
    can_sign_out: bool
    """Whether there is a session to end: a proxy's users sign out at the proxy."""
    sight: Sight
    """Whether it may show the numbers of bins."""
    sighted: bool
    """By the settings, auditors see the numbers first."""
    has_approvers: bool
    """Whether the settings let anybody who signs in as its reader does decide on variances."""

    @property
    def name(self) -> str | None:
        """The reader's name; None if nobody is signed in by name."""
        return self.writer.name if self.writer else None

    @property
    def is_blind(self) -> bool:
        """Whether its reader audits blind."""
        return self.sight is Sight.BLIND

    @property
    def must_sign_in(self) -> bool:
        """Whether its reader has to sign in to audit."""
        return self.is_on and self.writer is None


class Authenticator:
    """Authenticates requests, as the settings say. Raises SettingsError if these are invalid."""

    def __init__(self, settings: Settings) -> None:
        token = settings.monitor_token
        approving = settings.monitor_approver_token
        self._token = token.get_secret_value().encode() if token else None
        self._approver_token = approving.get_secret_value().encode() if approving else None
        tokens = [one for one in (self._token, self._approver_token) if one]
        if len(tokens) > len(set(tokens)):
            raise SettingsError("BINWATCH_MONITOR_APPROVER_TOKEN is BINWATCH_MONITOR_TOKEN; choose another secret")
        # Without a token only a proxy's users write, and their forms need a secret no longer than this process lives.
        secret = b"\n".join(tokens) or secrets.token_bytes(32)
        self.sessions = SessionCookies(secret)
        self._header = settings.monitor_user_header
        self._role_header, self._approver_role = settings.monitor_role_header, settings.monitor_approver_role
        # Where nobody audits, there is nothing to hide, and nothing to note.
        self.sights = Sights(secret, sighted=settings.audit_view is AuditView.SIGHTED or not self.is_on)
        self._proxies = TrustedProxies(settings)

    @property
    def is_on(self) -> bool:
        """Whether writing is configured."""
        return self._has_token or self._header is not None

    @property
    def _has_token(self) -> bool:
        return self._token is not None or self._approver_token is not None

    def sign_in(self, request: Request, token: str, name: str) -> str:
        """Value of the session's cookie. Raises WritingOff, ForeignForm, WrongToken or NoName."""
        if not self._has_token:
            raise WritingOff
        if not is_from_here(request, must_say_so=True):
            raise ForeignForm
        is_approver = self._is_token(token, self._approver_token)
        if not is_approver and not self._is_token(token, self._token):
            logger.warning("a wrong token was entered at %s", request.client.host if request.client else "?")
            raise WrongToken
        try:
            known = clean_name(name)
        except ValueError as error:
            raise NoName from error
        if known is None:
            raise NoName
        return self.sessions.begin(known, is_approver=is_approver)

    def access(self, request: Request) -> Access:
        """What the page may offer to the sender of the request."""
        writer = self.writer_of(request)
        by_role = None not in (self._header, self._role_header)
        # A user whom the proxy names cannot sign in with a token.
        by_token = self._approver_token is not None and not (writer and writer.how is Credential.PROXY)
        return Access(
            is_on=self.is_on,
            writer=writer,
            form_token=self.sessions.form_token(writer.holder) if writer else "",
            can_sign_out=writer is not None and writer.how is Credential.SESSION,
            sight=self.sights.of(request, is_person=writer is not None and writer.name is not None),
            sighted=self.sights.sighted,
            has_approvers=by_role or by_token,
        )

    def writer_of(self, request: Request) -> Writer | None:
        """Who sends the request; None if nothing shows that they may write."""
        return self._by_token(request) or self._by_proxy(request) or self._by_session(request)

    def require_writer(self, request: Request) -> Writer:
        """Who sends a request that writes. Raises WritingOff, NotSignedIn or ForeignForm."""
        if not self.is_on:
            raise WritingOff
        writer = self.writer_of(request)
        if writer is None:
            raise NotSignedIn
        # A browser sends a session's cookie, and a proxy its user, with whatever a stranger's page makes it send.
        if not is_from_here(request, must_say_so=writer.how is not Credential.TOKEN):
            raise ForeignForm
        return writer

    def require_approver(self, request: Request) -> Writer:
        """Who decides on a variance. Raises NotApprover, and what `require_writer` raises."""
        writer = self.require_writer(request)
        if not writer.is_approver:
            raise NotApprover
        return writer

    def require_supervisor(self, request: Request) -> None:
        """Raise NotApprover unless an approver reads: they see how often each auditor is right."""
        writer = self.writer_of(request)
        if writer is None or not writer.is_approver:
            raise NotApprover

    def require_sight(self, request: Request) -> None:
        """Raise NumbersHidden if the reader audits blind."""
        if self.access(request).is_blind:
            raise NumbersHidden

    def check_form(self, writer: Writer, form_token: str) -> None:
        """Raise ForeignForm unless a page of this monitor sent the form."""
        if writer.how is not Credential.TOKEN and not self.sessions.is_form_token(writer.holder, form_token):
            raise ForeignForm

    def view_token(self, writer: Writer, bucket: str, bin_id: str, photo: int | None) -> str:
        """Token of a view of a bin without its numbers, which an answer given in this view must send back."""
        return self.sights.begin(View(writer.holder, bucket, bin_id, photo))

    def was_blind(
        self, request: Request, writer: Writer, token: str | None, bucket: str, bin_id: str, photo: int | None
    ) -> bool:
        """Whether an answer with the token of a view is blind. Raises ForeignForm if the token is of another view."""
        if token is None:
            return False
        if not self.sights.is_of(token, View(writer.holder, bucket, bin_id, photo)):
            raise ForeignForm
        return self.sights.was_blind(request, bucket, bin_id)

    def _by_proxy(self, request: Request) -> Writer | None:
        if self._header is None or not self._proxies.sent(request):
            return None
        named = request.headers.getlist(self._header)
        try:
            name = clean_name(named[0]) if len(named) == 1 else None
        except ValueError:
            return None
        if name is None:
            return None
        lines = request.headers.getlist(self._role_header) if self._role_header else []
        is_approver = self._approver_role in [role.strip() for line in lines for role in line.split(",")]
        return Writer(Credential.PROXY, name, f"proxy:{name}", is_approver)

    def _by_token(self, request: Request) -> Writer | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        if self._is_token(token.strip(), self._approver_token):
            return Writer(Credential.TOKEN, None, "token", is_approver=True)
        return Writer(Credential.TOKEN, None, "token") if self._is_token(token.strip(), self._token) else None

    def _by_session(self, request: Request) -> Writer | None:
        session = self.sessions.read(request.cookies.get(COOKIE)) if self._has_token else None
        if session is None:
            return None
        # Without that token, a person who knows the other one could sign such a session.
        return Writer(
            Credential.SESSION,
            session.name,
            f"session:{session.id}",
            session.is_approver and bool(self._approver_token),
        )

    @staticmethod
    def _is_token(given: str, token: bytes | None) -> bool:
        return token is not None and hmac.compare_digest(given.encode(), token)


def is_from_here(request: Request, *, must_say_so: bool) -> bool:
    """Whether a page of this monitor sent the request, by headers that browsers set and pages cannot change.

    `must_say_so` refuses requests that do not say where they come from; scripts do not.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in _SAME_SITE
    origin = request.headers.get("origin")
    if origin is None:
        return not must_say_so
    # The scheme is left out: behind a proxy that speaks TLS, ours is http and the browser's is https.
    return urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()


def _authenticator(request: Request) -> Authenticator:
    found: Authenticator = request.app.state.authenticator
    return found


def _asks(method: Callable[[Authenticator, Request], object]) -> Any:
    """Dependency of a route on what a method of the authenticator says of the request."""

    def ask(request: Request) -> object:
        return method(_authenticator(request), request)

    return Depends(ask)


CurrentAuthenticator = Annotated[Authenticator, Depends(_authenticator)]
"""Type of a route's parameter that receives the authenticator."""
CurrentAccess = Annotated[Access, _asks(Authenticator.access)]
"""Type of a page's parameter that says what the page may offer to its reader."""
CurrentWriter = Annotated[Writer, _asks(Authenticator.require_writer)]
"""Type of a route's parameter that only lets those in who may write."""
CurrentApprover = Annotated[Writer, _asks(Authenticator.require_approver)]
"""Type of a route's parameter that only lets those in who may decide on variances."""
ShowsNumbers = _asks(Authenticator.require_sight)
"""Dependency of a route that shows numbers of bins: blind auditors are refused."""
Supervisor = _asks(Authenticator.require_supervisor)
"""Dependency of a route that only approvers may read."""
