"""Reads request bodies, and determines their type and the accepted type of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from binwatch.web.requests import Receive
from worker.sagemaker.serving.budget import Share

JSON = "application/json"
JSON_LINES = "application/jsonlines"
_JSON_LINES_TYPES = frozenset({JSON_LINES, "application/x-jsonlines", "application/jsonl", "application/x-ndjson"})

MAX_BODY_BYTES = 100 * 2**20
"""Maximum size of a body. SageMaker's limit is 100 MB."""
MAX_LINKS = 1000
"""Maximum number of links in one request. SageMaker expects an answer within at most ten minutes."""


class BodyKind(StrEnum):
    """The content of a body: a photo, one link as JSON, or links as JSON lines."""

    PHOTO = "photo"
    LINK = "link"
    LINES = "lines"


class BodyTooLarge(Exception):
    """The body has more than MAX_BODY_BYTES. The rest of it is not read."""


class ClientGone(Exception):
    """The client closed the connection before the body was complete."""


@dataclass(frozen=True, slots=True)
class Body:
    """A request body of `size` bytes."""

    data: bytes
    """The bytes; empty if they exceeded the limit of `read_body`."""
    size: int


def body_kind(content_type: str) -> BodyKind:
    """Return the kind of a body by its Content-Type.

    Every type except JSON is treated as a photo, since the bytes tell a photo's format more reliably.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in _JSON_LINES_TYPES:
        return BodyKind.LINES
    return BodyKind.LINK if media_type == JSON else BodyKind.PHOTO


def accepts(header: str, media_type: str) -> bool:
    """Return whether an Accept header accepts `media_type`. An empty header accepts every type."""
    ranges = [part.partition(";")[0].strip().lower() for part in header.split(",")]
    type_range = media_type.partition("/")[0] + "/*"
    return not header.strip() or not {"*/*", type_range, media_type}.isdisjoint(ranges)


async def read_body(receive: Receive, headers: Mapping[str, str], max_bytes: int, share: Share) -> Body:
    """Read the body, and discard its data if it has more than `max_bytes`. `share` is resized to the bytes held.

    Raises BodyTooLarge, ClientGone or OverBudget.
    """
    if int(headers.get("content-length", "0")) > MAX_BODY_BYTES:
        raise BodyTooLarge
    data = bytearray()  # not a list of chunks, which would fragment the memory
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise BodyTooLarge
        if size <= max_bytes:
            share.resize(size)
            data += chunk
        else:
            data.clear()
            share.resize(0)
        more = message.get("more_body", False)
    return Body(bytes(data), size)
