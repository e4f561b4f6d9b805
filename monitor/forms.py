"""The fields of the pages' forms, and the redirects after them.

A form that fails leads back to its page with `problem=` and a value of `FormProblem`, which the page explains. Requests
of scripts and of other sites get an error response (monitor.error_responses).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from fastapi import Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ValidationError

from monitor.access.proxies import root_path_of

FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 20
_MAX_PATH = 4_000
Model = TypeVar("Model", bound=BaseModel)


class FormProblem(StrEnum):
    """Why a form did nothing. The set is closed: pages have a sentence for each."""

    QUANTITY = "quantity"
    """The quantity is not a whole number, or more than a bin can hold."""
    ANSWER = "answer"
    """An unknown answer, or a number beside an answer that has none."""
    AT_LEAST = "at_least"
    """At least 0, which says nothing."""
    NOTE = "note"
    """A note that is too long or not printable."""
    NAME = "name"
    """No name, or one that is too long or not printable."""
    STALE = "stale"
    """Another photo of the bin has come since."""
    UNKNOWN_BIN = "unknown_bin"
    TOKEN = "token"  # noqa: S105 (a word, no secret)
    """Not the token."""
    SIGNED_OUT = "signed_out"
    """The session is over."""
    DECIDED = "decided"
    """The variance does not allow this decision, or no longer."""
    OWN_COUNT = "own_count"
    """An approver has counted the bin."""
    DECISION = "decision"
    """A rejection without a note, or no decision."""
    FOREIGN = "foreign"
    """The form is of an earlier session."""


async def _fields(request: Request) -> dict[str, str]:
    """The fields of a form; the last value of a field that was sent twice."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != FORM:
        raise HTTPException(415, f"a form is sent as {FORM}")
    try:
        text = (await request.body()).decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"))
    except ValueError as error:
        raise HTTPException(400, "the form cannot be read") from error


Fields = Annotated[dict[str, str], Depends(_fields)]


def validated(kind: type[Model], given: dict[str, Any], source: str = "body") -> Model:
    """A model of what was sent. Raises RequestValidationError, which names the `source`: body or query."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": (source, *one["loc"])} for one in error.errors()]) from error


def whole_number(text: str, digits: int = 8) -> int | str:
    """The number that a field holds, or its text as it is, so that the error says what was wrong."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else text


def local(path: str | None, otherwise: str) -> str:
    """`path` if it is a path within this monitor, else `otherwise`: no form may lead to another site."""
    if not path or len(path) > _MAX_PATH or not path.isprintable() or not path.isascii():
        return otherwise
    parts = urlsplit(path)
    # Browsers take "//host", "/\host" and "\\host" for other hosts.
    if parts.scheme or parts.netloc or not path.startswith("/") or path.startswith("//") or "\\" in path:
        return otherwise
    return path


def go(request: Request, path: str, **more: object) -> RedirectResponse:
    """Redirect to a page of the monitor; `more` replaces query parameters of the same names."""
    parts = urlsplit(path)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name not in {"problem", "saved", *more}]
    query = urlencode([*kept, *((name, str(value)) for name, value in more.items())])
    return RedirectResponse(root_path_of(request) + urlunsplit(("", "", parts.path, query, parts.fragment)), 303)
