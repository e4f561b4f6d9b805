"""Authentication of requests that write: by token, by session, or by the user that a trusted reverse proxy names."""

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
from monitor.access.sight import BlindView, Sight, SightTracker

logger = logging.getLogger(__name__)

COOKIE = "binwatch_session"
_ALLOWED_FETCH_SITES = {"same-origin", "none"}
"""Values of Sec-Fetch-Site for requests from the monitor's own pages and from the address bar."""


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
    """The sender of a request is not an approver."""

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
    """Kind of credential that authenticated a request."""

    TOKEN = "token"  # noqa: S105 (a name, not a secret)
    SESSION = "session"
    PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class Writer:
    """Authenticated user, or script with a token."""

    credential: Credential
    name: str | None
    """None for a script with a token, which names the auditor in each audit."""
    holder: str
    """Identifies the session, user or script in form tokens and in tokens of views."""
    is_approver: bool = False
    """Whether the writer may decide on variances."""


@dataclass(frozen=True, slots=True)
class Access:
    """What the reader of a page may see and do."""

    is_on: bool
    """Whether writing is configured; if not, WritingOff says how to configure it."""
    writer: Writer | None
    """None if the reader is not signed in."""
    form_token: str
    """Value of the hidden field `csrf` of every form; empty if the reader is not signed in."""
    can_sign_out: bool
    """Whether there is a session to end. Users named by a proxy sign out at the proxy."""
    sight: Sight
    """Whether the reader sees the numbers of bins."""
    sighted: bool
    """Whether, by the settings, auditors see the numbers before they answer."""
    has_approvers: bool
    """Whether there can be approvers: by the proxy's role header, or by an approver token that the reader may enter."""

    @property
    def name(self) -> str | None:
        """The reader's name; None if the reader is not signed in with a name."""
        return self.writer.name if self.writer else None

    @property
    def is_blind(self) -> bool:
        """Whether the reader audits blind."""
        return self.sight is Sight.BLIND

    @property
    def must_sign_in(self) -> bool:
        """Whether the reader has to sign in to audit."""
        return self.is_on and self.writer is None


class Authenticator:
    """Authenticates requests according to the settings. Raises SettingsError if the settings are invalid."""

    def __init__(self, settings: Settings) -> None:
        token = settings.monitor_token
        approver_token = settings.monitor_approver_token
        self._token = token.get_secret_value().encode() if token else None
        self._approver_token = approver_token.get_secret_value().encode() if approver_token else None
        tokens = [value for value in (self._token, self._approver_token) if value]
        if len(tokens) > len(set(tokens)):
            raise SettingsError("BINWATCH_MONITOR_APPROVER_TOKEN is BINWATCH_MONITOR_TOKEN; choose another secret")
        # Without a token, only users named by a proxy can write. A random secret then signs their forms, for as long as
        # this process lives.
        secret = b"\n".join(tokens) or secrets.token_bytes(32)
        self.sessions = SessionCookies(secret)
        self._user_header = settings.monitor_user_header
        self._role_header, self._approver_role = settings.monitor_role_header, settings.monitor_approver_role
        # If nobody can audit, there is nothing to hide or to record.
        sighted = settings.audit_view is AuditView.SIGHTED or not self.is_on
        self.sight_tracker = SightTracker(secret, sighted=sighted)
        self._proxies = TrustedProxies(settings)

    @property
    def is_on(self) -> bool:
        """Whether writing is configured."""
        return self._has_token or self._user_header is not None

    @property
    def _has_token(self) -> bool:
        return self._token is not None or self._approver_token is not None

    def sign_in(self, request: Request, token: str, name: str) -> str:
        """Open a session and return its cookie value. Raises WritingOff, ForeignForm, WrongToken or NoName."""
        if not self._has_token:
            raise WritingOff
        if not is_same_site(request, require_origin=True):
            raise ForeignForm
        is_approver = self._is_token(token, self._approver_token)
        if not is_approver and not self._is_token(token, self._token):
            logger.warning("a wrong token was entered at %s", request.client.host if request.client else "?")
            raise WrongToken
        try:
            plain = clean_name(name)
        except ValueError as error:
            raise NoName from error
        if plain is None:
            raise NoName
        return self.sessions.create(plain, is_approver=is_approver)

    def access(self, request: Request) -> Access:
        """Return what the sender of the request may see and do."""
        writer = self.find_writer(request)
        by_role = None not in (self._user_header, self._role_header)
        # A user named by the proxy cannot sign in with a token.
        by_token = self._approver_token is not None and not (writer and writer.credential is Credential.PROXY)
        return Access(
            is_on=self.is_on,
            writer=writer,
            form_token=self.sessions.form_token(writer.holder) if writer else "",
            can_sign_out=writer is not None and writer.credential is Credential.SESSION,
            sight=self.sight_tracker.sight(request, is_person=writer is not None and writer.name is not None),
            sighted=self.sight_tracker.sighted,
            has_approvers=by_role or by_token,
        )

    def find_writer(self, request: Request) -> Writer | None:
        """Return the authenticated sender of the request; None if it has no valid credential."""
        return self._writer_by_token(request) or self._writer_by_proxy(request) or self._writer_by_session(request)

    def require_writer(self, request: Request) -> Writer:
        """Return the sender of a request that writes. Raises WritingOff, NotSignedIn or ForeignForm."""
        if not self.is_on:
            raise WritingOff
        writer = self.find_writer(request)
        if writer is None:
            raise NotSignedIn
        # Requests that another site triggers carry the session's cookie or the proxy's user, too (CSRF).
        if not is_same_site(request, require_origin=writer.credential is not Credential.TOKEN):
            raise ForeignForm
        return writer

    def require_approver(self, request: Request) -> Writer:
        """Return the sender of a request that decides on a variance.

        Raises NotApprover, and the errors of `require_writer`.
        """
        writer = self.require_writer(request)
        if not writer.is_approver:
            raise NotApprover
        return writer

    def require_supervisor(self, request: Request) -> None:
        """Raise NotApprover unless the reader is an approver. Only approvers see how often each auditor is right."""
        writer = self.find_writer(request)
        if writer is None or not writer.is_approver:
            raise NotApprover

    def require_sight(self, request: Request) -> None:
        """Raise NumbersHidden if the reader audits blind."""
        if self.access(request).is_blind:
            raise NumbersHidden

    def check_form(self, writer: Writer, form_token: str) -> None:
        """Raise ForeignForm unless the form was sent from a page of this monitor. Requests with a bearer token pass."""
        if writer.credential is not Credential.TOKEN and not self.sessions.is_form_token(writer.holder, form_token):
            raise ForeignForm

    def view_token(self, writer: Writer, bucket: str, bin_id: str, photo: int | None) -> str:
        """Return the token of a blind view of a bin. A blind answer must send it back."""
        return self.sight_tracker.sign_view(BlindView(writer.holder, bucket, bin_id, photo))

    def was_blind(
        self, request: Request, writer: Writer, token: str | None, bucket: str, bin_id: str, photo: int | None
    ) -> bool:
        """Return whether an answer was given blind, judging by the token of its view and by the numbers shown before.

        Raises ForeignForm if the token belongs to another view.
        """
        if token is None:
            return False
        if not self.sight_tracker.is_token_of(token, BlindView(writer.holder, bucket, bin_id, photo)):
            raise ForeignForm
        return self.sight_tracker.may_audit_blind(request, bucket, bin_id)

    def _writer_by_proxy(self, request: Request) -> Writer | None:
        if self._user_header is None or not self._proxies.forwarded(request):
            return None
        names = request.headers.getlist(self._user_header)
        try:
            name = clean_name(names[0]) if len(names) == 1 else None
        except ValueError:
            return None
        if name is None:
            return None
        lines = request.headers.getlist(self._role_header) if self._role_header else []
        is_approver = self._approver_role in [role.strip() for line in lines for role in line.split(",")]
        return Writer(Credential.PROXY, name, f"proxy:{name}", is_approver)

    def _writer_by_token(self, request: Request) -> Writer | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        if self._is_token(token.strip(), self._approver_token):
            return Writer(Credential.TOKEN, None, "token", is_approver=True)
        return Writer(Credential.TOKEN, None, "token") if self._is_token(token.strip(), self._token) else None

    def _writer_by_session(self, request: Request) -> Writer | None:
        session = self.sessions.read(request.cookies.get(COOKIE)) if self._has_token else None
        if session is None:
            return None
        # Without an approver token, sessions are signed with the other token: its holders could forge an approver's.
        return Writer(
            Credential.SESSION,
            session.name,
            f"session:{session.id}",
            session.is_approver and bool(self._approver_token),
        )

    @staticmethod
    def _is_token(value: str, token: bytes | None) -> bool:
        return token is not None and hmac.compare_digest(value.encode(), token)


def is_same_site(request: Request, *, require_origin: bool) -> bool:
    """Return whether the request came from a page of this monitor or from the address bar.

    This is judged by headers that browsers set and pages cannot change. Requests without these headers, as scripts send
    them, are accepted unless `require_origin` is set.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in _ALLOWED_FETCH_SITES
    origin = request.headers.get("origin")
    if origin is None:
        return not require_origin
    # Compare without the scheme: behind a proxy that terminates TLS, it is http here and https in the browser.
    return urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()


def _authenticator(request: Request) -> Authenticator:
    authenticator: Authenticator = request.app.state.authenticator
    return authenticator


def _depends_on(method: Callable[[Authenticator, Request], object]) -> Any:
    """Return a route's dependency that calls a method of the authenticator with the request."""

    def call(request: Request) -> object:
        return method(_authenticator(request), request)

    return Depends(call)


CurrentAuthenticator = Annotated[Authenticator, Depends(_authenticator)]
"""Type of a route's parameter that receives the authenticator."""
CurrentAccess = Annotated[Access, _depends_on(Authenticator.access)]
"""Type of a route's parameter that receives what the reader may see and do."""
CurrentWriter = Annotated[Writer, _depends_on(Authenticator.require_writer)]
"""Type of a route's parameter that receives the writer; the route refuses requests that may not write."""
CurrentApprover = Annotated[Writer, _depends_on(Authenticator.require_approver)]
"""Type of a route's parameter that receives the approver; the route refuses everybody else."""
ShowsNumbers = _depends_on(Authenticator.require_sight)
"""Dependency of a route that shows numbers of bins: it refuses blind auditors."""
Supervisor = _depends_on(Authenticator.require_supervisor)
"""Dependency of a route that only approvers may read."""
