"""What a request asks for: the kind of its body, the photos or links in it, and the kind of answer that it takes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

JSON = "application/json"
JSON_LINES = "application/jsonlines"
_LINES = frozenset({JSON_LINES, "application/x-jsonlines", "application/jsonl", "application/x-ndjson"})

MAX_BODY = 100 * 2**20
"""SageMaker sends no more than 100 MB."""
MAX_LINKS = 1000
"""Links in one request at most: SageMaker wants an answer within ten minutes at the latest."""

Receive = Callable[[], Awaitable[dict[str, Any]]]


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


@dataclass(frozen=True, slots=True)
class NotALink:
    """What stands in a request where a link should be, and why it is none."""

    why: str


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


async def read_body(receive: Receive, headers: Mapping[str, str], wanted: int) -> Body:
    """The body, of which more than `wanted` bytes are read but not kept. Raises BodyTooLarge or ClientGone."""
    if int(headers.get("content-length", "0")) > MAX_BODY:
        raise BodyTooLarge
    chunks: list[bytes] = []
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
            chunks.append(chunk)
        else:
            chunks.clear()
        more = message.get("more_body", False)
    return Body(b"".join(chunks), size)


def links(data: bytes, kind: BodyKind) -> list[str | NotALink]:
    """The links of a JSON body, or of each line of one that has several. Blank lines are none."""
    texts = data.splitlines() if kind is BodyKind.LINES else [data]
    return [_link(text) for text in texts if text.strip()] or [NotALink("the body is empty")]


def _link(text: bytes) -> str | NotALink:
    try:
        asked = json.loads(text)
    except ValueError as error:  # no JSON, or no UTF-8
        return NotALink(f"is not JSON ({error})")
    link = asked.get("photo") if isinstance(asked, dict) else None
    if not isinstance(link, str):
        return NotALink('has no link; send {"photo": "s3://bucket/key"}')
    bucket, _, key = link.removeprefix("s3://").partition("/")
    if not link.startswith("s3://") or not bucket or not key:
        return NotALink(f"{link!r} is not of the form s3://bucket/key")
    return link
