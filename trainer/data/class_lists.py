"""Lists of photos by quantity, as the Udacity capstone's file_list.json: {"1": ["data/metadata/100313.json", …], …}."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from binwatch.errors import quote_value
from binwatch.keys import ObjectKind, bin_of_key, kind_of, normalise_bin_id
from binwatch.numbers import parse_int
from trainer.errors import DataError

SUFFIX = ".json"


def read_class_list(file: Path) -> dict[str, int]:
    """Read key → quantity, in the order of the list. Raises DataError, for example if a key has two quantities."""
    try:
        names_by_quantity = json.loads(file.read_text(encoding="utf-8-sig"))
        pairs = [(key_of(name), quantity) for quantity, names in names_by_quantity.items() for name in names]
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f'{file}: is not a list like {{"1": ["data/metadata/100313.json", …], …}} ({error})') from error
    quantities: dict[str, int] = {}
    for key, text in pairs:
        quantity = parse_int(text)
        if quantity is None or quantity < 0:
            raise DataError(
                f"{file}: {quote_value(text)} is not a number of items; the list must have photos by quantity"
            )
        if quantities.setdefault(key, quantity) != quantity:
            raise DataError(f"{file}: {key} is listed with {quantities[key]} and with {quantity} items; keep one")
    if not quantities:
        raise DataError(f"{file}: lists no photos")
    return quantities


def key_of(name: str) -> str:
    """Return the key of a photo or metadata file. For any other path, it is the last part, dots included."""
    return bin_of_key(name) if kind_of(name) is not ObjectKind.OTHER else normalise_bin_id(PurePosixPath(name).name)
