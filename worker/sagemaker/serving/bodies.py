"""Requests: the kind of the body, its bytes, and the accepted kind of answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from binwatch.web.requests import Receive
from worker.sagemaker.serving.budget import Share

JSON = "application/json"
JSON_LINES = "application/jsonlines"
_LINES = frozenset({JSON_LINES, "application/x-jsonlines", "application/jsonl", "application/x-ndjson"})

MAX_BODY = 100 * 2**20
"""SageMaker's limit is 100 MB."""
MAX_LINKS = 1000
"""Most links in one request, since SageMaker expects an answer within at most ten minutes."""


class BodyKind(StrEnum):
    """How a body is parsed."""

    PHOTO = "photo"
    LINK = "link"
    LINES = "lines"


class BodyTooLarge(Exception):
    """More than MAX_BODY bytes: the rest is not read."""


class ClientGone(Exception):
    """The client closed the connection before the body was complete."""


@dataclass(frozen=True, slots=True)
class Body:
    """A body of `size` bytes; `data` is empty if it is larger than wanted."""

    data: bytes
    size: int


def kind_of_body(content_type: str) -> BodyKind:
    """The kind of a body by its Content-Type. All but JSON is a photo, whose format its bytes tell more reliably."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in _LINES:
        return BodyKind.LINES
    return BodyKind.LINK if kind == JSON else BodyKind.PHOTO


def accepts(header: str, offered: str) -> bool:
    """Whether an Accept header accepts `offered` ("application/json"). An empty header accepts everything."""
    ranges = [part.partition(";")[0].strip().lower() for part in header.split(",")]
    kind = offered.partition("/")[0] + "/*"
    return not header.strip() or not {"*/*", kind, offered}.isdisjoint(ranges)


async def read_body(receive: Receive, headers: Mapping[str, str], wanted: int, share: Share) -> Body:
    """Read the body. If it is larger than `wanted` bytes, its data are discarded. `share` accounts for the kept bytes.

    Raises BodyTooLarge, ClientGone or OverBudget.
    """
    if int(headers.get("content-length", "0")) > MAX_BODY:
        raise BodyTooLarge
    data = bytearray()  # not a list of pieces, which would fragment the memory
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY:
            raise BodyTooLarge
        if size <= wanted:
            share.resize(size)
            data += chunk
        else:
            data.clear()
            share.resize(0)
        more = message.get("more_body", False)
    return Body(bytes(data), size)
