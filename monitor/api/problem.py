"""Error responses of the API as problem JSON (RFC 9457)."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel

MEDIA_TYPE: Final = "application/problem+json"


class Fault(BaseModel):
    """An invalid parameter or field."""

    where: str
    """Path of the parameter or field, such as `query.limit`."""
    says: str
    """Error message."""


class Problem(BaseModel):
    """An error response (RFC 9457)."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    """Meaning of the status."""
    status: int
    detail: str
    """What went wrong, and what to do."""
    faults: list[Fault] | None = None
    """All invalid parameters and fields of the request."""


def describe_errors(document: dict[str, Any]) -> dict[str, Any]:
    """Describe all error responses of an OpenAPI document as problem JSON, in place of FastAPI's own format."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    response["content"] = content
    return document
