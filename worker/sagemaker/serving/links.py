"""Parses links to photos, and decides which links are allowed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from binwatch.settings import Settings

_MAX_KEY_BYTES = 1024
"""S3's limit for keys."""
_MAX_SHOWN_CHARACTERS = 200
"""Length to which links are cut in messages."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link of the form s3://bucket/key."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class InvalidLink:
    """A line of a request that is not a link, and the reason."""

    reason: str


def read_links(lines: Iterable[bytes]) -> list[Link | InvalidLink]:
    """Parse the link in each line, which is a JSON object. Blank lines are ignored."""
    return [_parse_link(line) for line in lines if line.strip()] or [InvalidLink("the body is empty")]


def _parse_link(line: bytes) -> Link | InvalidLink:
    try:
        content = json.loads(line)
    except ValueError as error:  # not JSON, or not UTF-8
        return InvalidLink(f"is not JSON ({error})")
    except RecursionError:
        return InvalidLink("is JSON with too many nested levels")
    link = content.get("photo") if isinstance(content, dict) else None
    if not isinstance(link, str):
        return InvalidLink('has no link; send {"photo": "s3://bucket/key"}')
    bucket, _, key = link.removeprefix("s3://").partition("/")
    if not link.startswith("s3://") or not bucket or not key:
        return InvalidLink(f"{link[:_MAX_SHOWN_CHARACTERS]!r} is not of the form s3://bucket/key")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON allows
        return InvalidLink(f"{link[:_MAX_SHOWN_CHARACTERS]!r} is not Unicode text")
    if size > _MAX_KEY_BYTES:
        return InvalidLink(f"the key has {size:,} bytes; S3 has none over {_MAX_KEY_BYTES:,}")
    return Link(bucket, key)


class AllowedLinks:
    """The set of allowed links: keys of the bucket under the allowed prefixes, except models and nightly runs.

    Anyone who can reach the service may send links, and the service's credentials may give access to more than photos.
    """

    def __init__(self, settings: Settings) -> None:
        self._bucket = settings.bucket
        prefixes = (settings.serve_prefixes or "").split(",")
        self._prefixes = tuple(prefix.strip() for prefix in prefixes if prefix.strip()) or ("",)
        self._forbidden_prefixes = (settings.models_prefix, settings.nightly_prefix)

    def __contains__(self, link: Link) -> bool:
        return (
            link.bucket == self._bucket
            and link.key.startswith(self._prefixes)
            and not link.key.startswith(self._forbidden_prefixes)
            # Proxies, and object stores that use a folder, may resolve these as path segments.
            and {"..", "."}.isdisjoint(link.key.split("/"))
        )
