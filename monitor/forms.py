"""What the pages' forms send: signing in and out, and audits. Each answer is a way to the next page.

A form that fails leads back to where it came from with `problem=` and one of the words of `Problem`, which the page
explains: nothing that was sent is ever shown again as it came.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from binwatch.records.audits import StaleAudit, UnknownBin
from monitor.access.sessions import LIFETIME
from monitor.access.writers import (
    COOKIE,
    Door,
    ForeignForm,
    NotSignedIn,
    WritingOff,
    WrongToken,
    plain_name,
)
from monitor.auditing import NewAudit, save
from monitor.services import Given

router = APIRouter(include_in_schema=False)

FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 20
_MAX_PATH = 4_000


class Problem(StrEnum):
    """Why a form did nothing. The set is closed: pages have a sentence for each."""

    QUANTITY = "quantity"
    """No whole number of items that a bin can hold."""
    NAME = "name"
    """A name that is too long, or not printable."""
    STALE = "stale"
    """Another photo of the bin has come since."""
    UNKNOWN_BIN = "unknown_bin"
    TOKEN = "token"  # noqa: S105 (a word, no secret)
    """Not the token."""
    SIGNED_OUT = "signed_out"
    """The session is over."""
    FOREIGN = "foreign"
    """The form was too old, or another site sent it."""
    OFF = "off"
    """Nobody can write: no token is set."""


async def _fields(request: Request) -> dict[str, str]:
    """What a form sent; of a field that is there twice, the last."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != FORM:
        raise HTTPException(415, f"a form is sent as {FORM}")
    try:
        text = (await request.body()).decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"))
    except ValueError as error:
        raise HTTPException(400, "the form cannot be read") from error


Fields = Annotated[dict[str, str], Depends(_fields)]


@router.post("/audits")
def enter(request: Request, services: Given, door: Door, fields: Fields) -> RedirectResponse:
    """Fields bin, bucket, quantity, photo, auditor, csrf; `next`: where to go; `back`: where to go if it fails."""
    back = local(fields.get("back"), "/discrepancies")
    try:
        writer = door.admit(request)
        door.check_form(writer, fields.get("csrf", ""))
        saved = save(services.writable, _audit(fields), writer, services.settings.bucket)
    except ValidationError as error:
        field = error.errors()[0]["loc"][0]
        return _go(back, problem=Problem.NAME if field == "auditor" else Problem.QUANTITY)
    except StaleAudit:
        return _go(back, problem=Problem.STALE)
    except UnknownBin:
        return _go(back, problem=Problem.UNKNOWN_BIN)
    except ForeignForm:
        return _go(back, problem=Problem.FOREIGN)
    except (NotSignedIn, WritingOff) as error:
        return _go("/login", problem=Problem.OFF if isinstance(error, WritingOff) else Problem.SIGNED_OUT, next=back)
    return _go(local(fields.get("next"), back), saved=saved.id)


@router.post("/login")
def sign_in(request: Request, door: Door, fields: Fields) -> RedirectResponse:
    """Fields token, name; `next`: where to go."""
    onwards = local(fields.get("next"), "/")
    try:
        cookie = door.sign_in(request, fields.get("token", ""), plain_name(fields.get("name")))
    except ValueError:
        return _go("/login", problem=Problem.NAME, next=onwards)
    except ForeignForm:
        return _go("/login", problem=Problem.FOREIGN, next=onwards)
    except WritingOff:
        return _go("/login", problem=Problem.OFF, next=onwards)
    except WrongToken:
        return _go("/login", problem=Problem.TOKEN, next=onwards)
    answer = _go(onwards)
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=int(LIFETIME.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:"),
    )
    return answer


@router.post("/logout")
def sign_out(request: Request, door: Door, fields: Fields) -> RedirectResponse:
    """Fields csrf; `next`: where to go."""
    answer = _go(local(fields.get("next"), "/"))
    try:
        door.check_form(door.admit(request), fields.get("csrf", ""))
    except (NotSignedIn, WritingOff):
        return answer  # there is nothing to end
    except ForeignForm:
        return _go(local(fields.get("next"), "/"), problem=Problem.FOREIGN)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def local(path: str | None, otherwise: str) -> str:
    """`path` if it is a path of this monitor, else `otherwise`: no form may lead to another site."""
    if not path or len(path) > _MAX_PATH or not path.isprintable() or not path.isascii():
        return otherwise
    parts = urlsplit(path)
    # Browsers take "//host", "/\host" and "\\host" for other hosts.
    if parts.scheme or parts.netloc or not path.startswith("/") or path.startswith("//") or "\\" in path:
        return otherwise
    return path


def _audit(fields: dict[str, str]) -> NewAudit:
    """A number that is none fails there as it is: the form's page says what was wrong."""
    quantity, photo = fields.get("quantity", "").strip(), fields.get("photo", "").strip()
    given = {
        "bin": fields.get("bin", ""),
        "bucket": fields.get("bucket") or None,
        "quantity": int(quantity) if quantity.isascii() and quantity.isdigit() and len(quantity) < 9 else quantity,
        "photo": int(photo) if photo.isascii() and photo.isdigit() and len(photo) < 19 else photo or None,
        "auditor": fields.get("auditor"),
    }
    return NewAudit.model_validate(given)


def _go(path: str, **more: object) -> RedirectResponse:
    """To a page of ours, by GET, with `more` in its address instead of what the same names had there."""
    parts = urlsplit(path)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name not in {"problem", "saved", *more}]
    query = urlencode([*kept, *((name, str(value)) for name, value in more.items())])
    return RedirectResponse(urlunsplit(("", "", parts.path, query, parts.fragment)), 303)
