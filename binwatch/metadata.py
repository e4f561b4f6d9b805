"""A bin's metadata JSON → its expected quantity and contents, in the format of the Amazon Bin Image Dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NotRequired, TypedDict

from binwatch.errors import MetadataError, MetadataReason
from binwatch.text import shortened

QUANTITY = "EXPECTED_QUANTITY"
MAX_QUANTITY = 1_000_000
"""Largest plausible quantity; a larger number means a damaged file."""
ITEMS = "BIN_FCSKU_DATA"
MAX_ITEMS = 100
"""Most articles of a bin that are kept. Real bins have fewer, but a file may have many."""
_ARTICLES = 1_000
_SIDES = ("length", "width", "height")
_LONGEST, _UNIT = 1e5, 10
"""Limits for a side of an article, and for the length of a unit's name."""
MAX_TEXT = 200
"""Most characters of an article's number and of its name that are kept."""


class Article(TypedDict):
    """One article in a bin. Its texts are external, but printable and of limited length."""

    sku: str
    name: str
    quantity: int | None
    """None if the file has no whole number."""
    size: NotRequired[str]
    """Its three sides, the longest first, such as "7 × 4.2 × 1.8 in"; missing if the file does not have them."""


def expected_quantity(data: bytes) -> int:
    """Number of items that the inventory expects in the bin. Raises MetadataError with the reason."""
    document = _parse(data)
    if not isinstance(document, dict) or QUANTITY not in document:
        raise MetadataError(MetadataReason.NO_QUANTITY, f"the JSON has no {QUANTITY} at its top level; add it")
    value = _whole(document[QUANTITY])
    if value is None:
        raise MetadataError(
            MetadataReason.BAD_QUANTITY,
            f"{QUANTITY} is {str(document[QUANTITY])[:40]!r}, not a whole number of 0 to {MAX_QUANTITY:,}",
        )
    return value


def contents(data: bytes) -> list[Article] | None:
    """The articles in the bin, at most MAX_ITEMS; None if the file has none. Does not raise."""
    try:
        document = _parse(data)
    except MetadataError:
        return None
    found = document.get(ITEMS) if isinstance(document, dict) else None
    if not isinstance(found, dict):
        return None
    articles: list[Article] = []
    for sku, item in found.items():
        if isinstance(item, dict):
            name = item.get("name") or item.get("normalizedName")
            name = name if isinstance(name, str) else ""
            article = Article(sku=printable(sku), name=printable(name), quantity=_whole(item.get("quantity")))
            size = _size(item)
            articles.append(article | {"size": size} if size else article)
    return articles[:MAX_ITEMS]


def articles_in_words(items: Sequence[Article]) -> str:
    """The contents of a bin as one text for a table, at most 1,000 characters."""
    words = []
    for item in items:
        times = "" if item["quantity"] is None else f"{item['quantity']} × "
        words.append(times + " ".join(filter(None, (item["sku"], item["name"]))))
    return shortened("; ".join(words), _ARTICLES)


def _size(item: dict[str, object]) -> str | None:
    """The size in words; None unless the file has all three sides in the same unit."""
    sides = [side for side in map(item.get, _SIDES) if isinstance(side, dict)]
    units, lengths = [side.get("unit") for side in sides], [side.get("value") for side in sides]
    numbers = [float(one) for one in lengths if isinstance(one, int | float) and 0 < one < _LONGEST]
    if len(numbers) != len(_SIDES) or units != units[:1] * len(_SIDES) or not isinstance(unit := units[0], str):
        return None
    return f"{' × '.join(f'{one:.3g}' for one in sorted(numbers, reverse=True))} {printable(unit)[:_UNIT].lower()}"


def printable(text: str) -> str:
    """A text without line breaks, direction marks and characters that databases refuse, and shortened."""
    return "".join(character if character.isprintable() else " " for character in text[:MAX_TEXT]).strip()


def _whole(value: object) -> int | None:
    """The value as a plausible quantity; else None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_QUANTITY:
        return None
    return value


def _parse(data: bytes) -> object:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise MetadataError(MetadataReason.NOT_JSON, f"the file is not JSON ({error}); write it again") from error
