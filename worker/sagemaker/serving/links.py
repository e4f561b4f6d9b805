"""Links to photos: parsing them, and the rules for which links are allowed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from binwatch.settings import Settings

_MAX_KEY = 1024
"""S3's limit on a key, in bytes."""
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
    """A line of a request that is not a link, and the reason."""

    why: str


def read_links(texts: Iterable[bytes]) -> list[Link | NotALink]:
    """The link in each JSON object. Blank texts are ignored."""
    return [_link(text) for text in texts if text.strip()] or [NotALink("the body is empty")]


def _link(text: bytes) -> Link | NotALink:
    try:
        asked = json.loads(text)
    except ValueError as error:  # not JSON, or not UTF-8
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
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON allows
        return NotALink(f"{link[:_SHOWN]!r} is not Unicode text")
    if size > _MAX_KEY:
        return NotALink(f"the key has {size:,} bytes; S3 has none over {_MAX_KEY:,}")
    return Link(bucket, key)


class AllowedLinks:
    """The allowed links: to keys of the bucket under the allowed prefixes, but not to models and nightly runs.

    Anyone who can reach the service may send links, and the service's credentials may read more than photos.
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
            # Proxies, and object stores that use a folder, may resolve these as path segments.
            and {"..", "."}.isdisjoint(link.key.split("/"))
        )
