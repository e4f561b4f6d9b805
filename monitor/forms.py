"""Fields of the pages' forms, and the redirects after them.

A form that fails is redirected back to its page with `problem=` and a `FormProblem`, which the page explains. Requests
of scripts and of other sites get an error response instead (monitor.error_responses).
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
_MAX_PATH_LENGTH = 4_000
Model = TypeVar("Model", bound=BaseModel)


class FormProblem(StrEnum):
    """Why a form had no effect. The set is closed, because pages have a sentence for each."""

    QUANTITY = "quantity"
    """The quantity is not a whole number, or larger than a bin can hold."""
    ANSWER = "answer"
    """An unknown answer, or a number with an answer that has none."""
    AT_LEAST = "at_least"
    """The answer "at least 0", which says nothing."""
    NOTE = "note"
    """A note that is too long or not printable."""
    NAME = "name"
    """No name, or one that is too long or not printable."""
    STALE = "stale"
    """There is a newer photo of the bin."""
    UNKNOWN_BIN = "unknown_bin"
    TOKEN = "token"  # noqa: S105 (not a secret)
    """The token is wrong."""
    SIGNED_OUT = "signed_out"
    """The session has ended."""
    DECIDED = "decided"
    """The variance does not allow this decision, or no longer does."""
    OWN_COUNT = "own_count"
    """The approver has counted the bin."""
    DECISION = "decision"
    """A rejection without a note, or no decision."""
    FOREIGN = "foreign"
    """The form belongs to an earlier session."""


async def _read_fields(request: Request) -> dict[str, str]:
    """Return the fields of a form. If a field is repeated, its last value counts."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != FORM:
        raise HTTPException(415, f"a form is sent as {FORM}")
    try:
        text = (await request.body()).decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"))
    except ValueError as error:
        raise HTTPException(400, "the form cannot be read") from error


Fields = Annotated[dict[str, str], Depends(_read_fields)]


def validate(model: type[Model], values: dict[str, Any], source: str = "body") -> Model:
    """Validate values. Errors name their `source`, body or query. Raises RequestValidationError."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        errors = [{**details, "loc": (source, *details["loc"])} for details in error.errors()]
        raise RequestValidationError(errors) from error


def whole_number(text: str, digits: int = 8) -> int | str:
    """Parse a field as a number. Otherwise return its text, so that the validation error quotes it."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else text


def local_path(path: str | None, default: str) -> str:
    """Return `path` if it is a path within this monitor, else `default`: no form may redirect to another site."""
    if not path or len(path) > _MAX_PATH_LENGTH or not path.isprintable() or not path.isascii():
        return default
    parts = urlsplit(path)
    # Browsers interpret "//host", "/\host" and "\\host" as other hosts.
    if parts.scheme or parts.netloc or not path.startswith("/") or path.startswith("//") or "\\" in path:
        return default
    return path


def redirect(request: Request, path: str, **parameters: object) -> RedirectResponse:
    """Redirect to a page of the monitor. `parameters` replace those of the same names, and an earlier form's result."""
    parts = urlsplit(path)
    replaced = {"problem", "saved", *parameters}
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name not in replaced]
    query = urlencode([*kept, *((name, str(value)) for name, value in parameters.items())])
    return RedirectResponse(root_path_of(request) + urlunsplit(("", "", parts.path, query, parts.fragment)), 303)
