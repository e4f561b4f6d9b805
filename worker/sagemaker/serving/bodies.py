"""What a request sends: the kind of its body, its bytes, and the kind of answer that it takes."""

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
"""SageMaker sends no more than 100 MB."""
MAX_LINKS = 1000
"""Links in one request at most: SageMaker wants an answer within ten minutes at the latest."""


class BodyKind(StrEnum):
    """How a body is read."""

    PHOTO = "photo"
    LINK = "link"
    LINES = "lines"


class BodyTooLarge(Exception):
    """More than MAX_BODY bytes: the rest is not read."""


class ClientGone(Exception):
    """The client closed the connection before all was there."""


@dataclass(frozen=True, slots=True)
class Body:
    """A body of `size` bytes; `data` is empty if they are more than were wanted."""

    data: bytes
    size: int


def kind_of_body(content_type: str) -> BodyKind:
    """Whatever is no JSON is taken for a photo: its bytes say what it is, better than any name for them."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in _LINES:
        return BodyKind.LINES
    return BodyKind.LINK if kind == JSON else BodyKind.PHOTO


def accepts(header: str, offered: str) -> bool:
    """Whether an Accept header takes `offered` ("application/json"). An empty one takes everything."""
    ranges = [part.partition(";")[0].strip().lower() for part in header.split(",")]
    kind = offered.partition("/")[0] + "/*"
    return not header.strip() or not {"*/*", kind, offered}.isdisjoint(ranges)


async def read_body(receive: Receive, headers: Mapping[str, str], wanted: int, share: Share) -> Body:
    """The body, of which more than `wanted` bytes are read but not kept; `share` holds what is.

    Raises BodyTooLarge, ClientGone or OverBudget.
    """
    if int(headers.get("content-length", "0")) > MAX_BODY:
        raise BodyTooLarge
    data = bytearray()  # not a list of pieces: those that are freed between others that are kept leave holes
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
