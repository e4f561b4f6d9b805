"""Error responses of the API: problem JSON (RFC 9457), the same for every status."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel

MEDIA_TYPE: Final = "application/problem+json"


class Fault(BaseModel):
    """A parameter or field that is invalid."""

    where: str
    """The parameter or field, as `query.limit`."""
    says: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    """What the status means."""
    status: int
    detail: str
    """What went wrong here, and what to do."""
    faults: list[Fault] | None = None
    """All invalid parameters and fields of a request."""


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """Describe all error responses of an OpenAPI document as problem JSON, in place of FastAPI's own format."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    said = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    for path in document["paths"].values():
        for operation in path.values():
            wrong = [one for status, one in operation["responses"].items() if int(status) >= 400]
            for response in wrong:
                response["content"] = said
    return document
