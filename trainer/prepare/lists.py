"""Lists that people bring: keys, the challenge's validation photos, audits."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from binwatch.errors import shown
from binwatch.keys import bin_id
from binwatch.metadata import MAX_QUANTITY
from binwatch.numbers import whole
from binwatch.safe_csv import original
from trainer.data import class_lists
from trainer.errors import DataError


def read_keys(file: Path) -> list[str]:
    """Keys from a JSON of classes (the Udacity capstone's file_list.json) or a text file with one per line."""
    if file.suffix.lower() == class_lists.SUFFIX:
        return list(class_lists.read_class_list(file))
    lines = (line.strip() for line in _text(file).splitlines())
    return list(dict.fromkeys(class_lists.key_of(line) for line in lines if line))


def read_challenge(file: Path) -> frozenset[str]:
    """Keys of the ABID challenge's random_val.txt: one number per line, which it pads with zeros to five digits."""
    found = []
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if line.strip():
            photo = whole(line)
            if photo is None or photo < 0:
                raise DataError(f"{file}, line {number}: {shown(line.strip())} is not the number of a photo")
            found.append(f"{photo:05}")
    if not found:
        raise DataError(f"{file}: lists no photos")
    return frozenset(found)


def read_audits(file: Path) -> dict[str, int]:
    """Bin → what a person counted, from a CSV with the columns `bin` and `quantity`; the last row of a bin counts."""
    found: dict[str, int] = {}
    reader = csv.DictReader(io.StringIO(_text(file), newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: is not a CSV ({error})") from error
    missing = {"bin", "quantity"} - set(reader.fieldnames or ())
    if missing:
        raise DataError(f"{file}: no column {sorted(missing)[0]!r}; an audit is a bin and the quantity found in it")
    for line, row in rows:
        name, quantity = bin_id(original((row["bin"] or "").strip())), whole(row["quantity"] or "")
        if not name:
            raise DataError(f"{file}, line {line}: bin is empty")
        if quantity is None or not 0 <= quantity <= MAX_QUANTITY:
            raise DataError(
                f"{file}, line {line}: quantity {shown(row['quantity'])} of bin {name} is not a whole number of 0 to"
                f" {MAX_QUANTITY:,}"
            )
        found[name] = quantity
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not text in UTF-8 ({error})") from error
