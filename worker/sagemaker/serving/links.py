"""Links to photos: what a request has of them, and where they may lead."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from binwatch.settings import Settings

_MAX_KEY = 1024
"""Bytes of a key: S3 has none that are longer."""
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Link:
    """s3://bucket/key."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class NotALink:
    """What stands in a request where a link should be, and why it is none."""

    why: str


def read_links(texts: Iterable[bytes]) -> list[Link | NotALink]:
    """The link of each JSON object. Blank texts are none."""
    return [_link(text) for text in texts if text.strip()] or [NotALink("the body is empty")]


def _link(text: bytes) -> Link | NotALink:
    try:
        asked = json.loads(text)
    except ValueError as error:  # no JSON, or no UTF-8
        return NotALink(f"is not JSON ({error})")
    except RecursionError:
        return NotALink("is JSON with too many nested levels")
    link = asked.get("photo") if isinstance(asked, dict) else None
    if not isinstance(link, str):
        return NotALink('has no link; send {"photo": "s3://bucket/key"}')
    bucket, _, key = link.removeprefix("s3://").partition("/")
    if not link.startswith("s3://") or not bucket or not key:
        return NotALink(f"{link[:_SHOWN]!r} is not of the form s3://bucket/key")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON may have it
        return NotALink(f"{link[:_SHOWN]!r} is not Unicode text")
    if size > _MAX_KEY:
        return NotALink(f"the key has {size:,} bytes; S3 has none over {_MAX_KEY:,}")
    return Link(bucket, key)


class AllowedLinks:
    """Where links may lead: into the bucket, to keys under the allowed prefixes, and never to models and nightly runs.

    Whoever reaches the service may send links, and its credentials may read more than photos.
    """

    def __init__(self, settings: Settings) -> None:
        self._bucket = settings.bucket
        prefixes = (settings.serve_prefixes or "").split(",")
        self._prefixes = tuple(prefix.strip() for prefix in prefixes if prefix.strip()) or ("",)
        self._closed = (settings.models_prefix, settings.nightly_prefix)

    def __contains__(self, link: Link) -> bool:
        return (
            link.bucket == self._bucket
            and link.key.startswith(self._prefixes)
            and not link.key.startswith(self._closed)
            # Object stores that are folders, and proxies, may take these for steps in a path.
            and {"..", "."}.isdisjoint(link.key.split("/"))
        )
