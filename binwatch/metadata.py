"""A bin's metadata JSON → its expected quantity. Source: the layout of the Amazon Bin Image Dataset."""

from __future__ import annotations

import json

from binwatch.errors import MetadataError, MetadataReason

QUANTITY = "EXPECTED_QUANTITY"
MAX_QUANTITY = 1_000_000
"""No bin holds more; a larger number is a damaged file."""


def expected_quantity(data: bytes) -> int:
    """Number of items that the inventory expects in the bin. Raises MetadataError with the reason."""
    document = _parse(data)
    if not isinstance(document, dict) or QUANTITY not in document:
        raise MetadataError(MetadataReason.NO_QUANTITY, f"the JSON has no {QUANTITY} at its top level; add it")
    value = document[QUANTITY]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_QUANTITY:
        raise MetadataError(
            MetadataReason.BAD_QUANTITY,
            f"{QUANTITY} is {str(value)[:40]!r}, not a whole number of 0 to {MAX_QUANTITY:,}",
        )
    return value


def _parse(data: bytes) -> object:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise MetadataError(MetadataReason.NOT_JSON, f"the file is not JSON ({error}); write it again") from error
