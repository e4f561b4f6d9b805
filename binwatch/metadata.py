"""Parses a bin's metadata JSON: expected quantity and articles, in the format of the Amazon Bin Image Dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NotRequired, TypedDict

from binwatch.errors import MetadataError, MetadataReason
from binwatch.text import truncate

QUANTITY_FIELD = "EXPECTED_QUANTITY"
MAX_QUANTITY = 1_000_000
"""Maximum plausible quantity. A larger number means that the file is damaged."""
ARTICLES_FIELD = "BIN_FCSKU_DATA"
MAX_ARTICLES = 100
"""Maximum number of articles kept per bin. Real bins have fewer, but a file may list many."""
_MAX_DESCRIPTION_CHARS = 1_000
_SIDE_FIELDS = ("length", "width", "height")
_MAX_SIDE, _MAX_UNIT_CHARS = 1e5, 10
"""Maximum side of an article, in any unit, and maximum length of the unit's name."""
MAX_TEXT_CHARS = 200
"""Maximum number of characters kept of an article's SKU and of its name."""


class Article(TypedDict):
    """One article in a bin. Its texts are external, but sanitised and of limited length."""

    sku: str
    name: str
    quantity: int | None
    """None if the file has no plausible whole number."""
    size: NotRequired[str]
    """The three sides, the longest first, as in "7 × 4.2 × 1.8 in"; absent if the file does not have them."""


def expected_quantity(data: bytes) -> int:
    """Parse the number of items that the inventory expects in the bin. Raises MetadataError with the reason."""
    document = _load_json(data)
    if not isinstance(document, dict) or QUANTITY_FIELD not in document:
        raise MetadataError(MetadataReason.NO_QUANTITY, f"the JSON has no {QUANTITY_FIELD} at its top level; add it")
    value = _plausible_quantity(document[QUANTITY_FIELD])
    if value is None:
        raise MetadataError(
            MetadataReason.BAD_QUANTITY,
            f"{QUANTITY_FIELD} is {str(document[QUANTITY_FIELD])[:40]!r}, not a whole number of 0 to {MAX_QUANTITY:,}",
        )
    return value


def parse_articles(data: bytes) -> list[Article] | None:
    """Parse at most MAX_ARTICLES articles in the bin; None if the file does not list articles or is invalid."""
    try:
        document = _load_json(data)
    except MetadataError:
        return None
    items = document.get(ARTICLES_FIELD) if isinstance(document, dict) else None
    if not isinstance(items, dict):
        return None
    articles: list[Article] = []
    for sku, item in items.items():
        if isinstance(item, dict):
            name = item.get("name") or item.get("normalizedName")
            name = name if isinstance(name, str) else ""
            article = Article(
                sku=clean_text(sku), name=clean_text(name), quantity=_plausible_quantity(item.get("quantity"))
            )
            size = _describe_size(item)
            articles.append(article | {"size": size} if size else article)
    return articles[:MAX_ARTICLES]


def describe_articles(articles: Sequence[Article]) -> str:
    """Describe the articles in one text for a table, of at most 1,000 characters."""
    descriptions = []
    for article in articles:
        times = "" if article["quantity"] is None else f"{article['quantity']} × "
        descriptions.append(times + " ".join(filter(None, (article["sku"], article["name"]))))
    return truncate("; ".join(descriptions), _MAX_DESCRIPTION_CHARS)


def _describe_size(item: dict[str, object]) -> str | None:
    """Describe the size of an article; None unless the file has all three sides in the same unit."""
    sides = [side for side in map(item.get, _SIDE_FIELDS) if isinstance(side, dict)]
    units, values = [side.get("unit") for side in sides], [side.get("value") for side in sides]
    lengths = [float(value) for value in values if isinstance(value, int | float) and 0 < value < _MAX_SIDE]
    if len(lengths) != len(_SIDE_FIELDS) or units != units[:1] * len(_SIDE_FIELDS):
        return None
    unit = units[0]
    if not isinstance(unit, str):
        return None
    size = " × ".join(f"{length:.3g}" for length in sorted(lengths, reverse=True))
    return f"{size} {clean_text(unit)[:_MAX_UNIT_CHARS].lower()}"


def clean_text(text: str) -> str:
    """Replace unprintable characters, such as line breaks, direction marks and NUL, with spaces; truncate the text."""
    return "".join(character if character.isprintable() else " " for character in text[:MAX_TEXT_CHARS]).strip()


def _plausible_quantity(value: object) -> int | None:
    """Return a JSON value as a quantity; None if it is not a plausible one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_QUANTITY:
        return None
    return value


def _load_json(data: bytes) -> object:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise MetadataError(MetadataReason.NOT_JSON, f"the file is not JSON ({error}); write it again") from error
