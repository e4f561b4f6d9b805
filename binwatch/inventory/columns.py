"""Finds the columns of the bin, the quantity and the article by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from binwatch.errors import BinwatchError, quote_value
from binwatch.text import escape_unprintable, preview_names

_MAX_LISTED_COLUMNS = 12
"""Maximum number of columns in an error message."""
_MAX_NAME_CHARACTERS = 60
"""Length to which column names are cut in messages."""

# Column names of warehouse systems in several languages. The first one that occurs in the table is used.
_BIN_NAMES = (
    *("bin", "binid", "bincode", "binno", "binnumber", "binname", "binlocation", "storagebin", "storagebinid"),
    *("locationid", "locationcode", "location", "slot", "slotid", "shelf", "behalter", "behalternummer", "lagerplatz"),
    *("lagerfach", "fach", "stellplatz", "platz", "emplacement", "casier", "bac", "ubicacion", "ubicazione", "locatie"),
    *("photo", "photoname", "image", "imagename", "filename", "file", "foto", "bild"),
)
_QUANTITY_NAMES = (
    *("expectedquantity", "expectedqty", "qtyexpected", "quantity", "qty", "qtyonhand", "quantityonhand", "onhandqty"),
    *("onhandquantity", "onhand", "stockqty", "stockquantity", "bookquantity", "bookqty", "systemqty", "expected"),
    *("sollmenge", "sollbestand", "buchbestand", "bestand", "menge", "anzahl", "stuck", "stuckzahl", "quantite"),
    *("qte", "stock", "cantidad", "existencias", "quantita", "giacenza", "aantal", "units", "pieces", "pcs", "items"),
    "count",
)
_ARTICLE_NAMES = (
    *("sku", "skuid", "article", "articleno", "articlenumber", "articleid", "itemno", "itemnumber", "itemid", "item"),
    *("productid", "productcode", "product", "partnumber", "partno", "material", "materialnumber", "fcsku", "asin"),
    *("artikel", "artikelnummer", "artikelnr", "materialnummer", "reference", "articulo", "articolo"),
)
_BIN_WORDS = frozenset({"bin", "location", "slot", "lagerplatz", "behalter", "emplacement", "ubicacion"})
_QUANTITY_WORDS = frozenset({"qty", "quantity", "menge", "bestand", "anzahl", "quantite", "qte", "cantidad"})


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Names of columns given by the user. A column without a given name (None) is detected."""

    bin: str | None = None
    quantity: str | None = None
    article: str | None = None
    kept: tuple[str, ...] = ()
    """Names of further columns whose texts are kept, such as the bin's location."""
    has_options: bool = field(default=True, kw_only=True)
    """Whether the names can be given as command-line options, so that messages can mention them."""


@dataclass(frozen=True, slots=True)
class InventoryColumns:
    """Positions of the columns in a table, counted from 0."""

    bin: int
    quantity: int
    article: int | None
    kept: tuple[int, ...]
    description: str
    """Text such as "bin from 'Bin ID', quantity from 'Expected Qty'"."""


class _AmbiguousColumn(Exception):
    """Several columns match; the message quotes their names."""


def find_columns(header: Sequence[str], names: ColumnNames) -> InventoryColumns | None:
    """Return the columns if `header` is a row that names them, else None."""
    try:
        bin_ = _find_column(header, names.bin, _BIN_NAMES, _BIN_WORDS)
        quantity = _find_column(header, names.quantity, _QUANTITY_NAMES, _QUANTITY_WORDS)
        article = _find_column(header, names.article, _ARTICLE_NAMES, frozenset())
        kept = [_find_column(header, name, (), frozenset()) for name in names.kept]
    except _AmbiguousColumn:
        return None
    if bin_ is None or quantity is None or bin_ == quantity or (names.article and article is None) or None in kept:
        return None
    if article in (bin_, quantity):
        article = None
    columns = {"bin": bin_, "quantity": quantity, "article": article}
    description = ", ".join(f"{role} from {_quoted(header[i])}" for role, i in columns.items() if i is not None)
    return InventoryColumns(bin_, quantity, article, tuple(i for i in kept if i is not None), description)


def columns_error(file: Path, header: Sequence[str], names: ColumnNames) -> BinwatchError:
    """Return the error for a file whose columns were not found; `header` is the longest of its first rows."""
    cells = [_short(cell) for cell in header if cell.strip()]
    present = preview_names(cells, _MAX_LISTED_COLUMNS) or "nothing"
    roles = (
        ("bin", names.bin, _BIN_NAMES, _BIN_WORDS),
        ("quantity", names.quantity, _QUANTITY_NAMES, _QUANTITY_WORDS),
        ("article", names.article, (), frozenset[str]()),
        *(("keep", name, (), frozenset[str]()) for name in names.kept),
    )
    for role, name, usual_names, usual_words in roles:
        option = f"--{role}-column"
        try:
            column = _find_column(header, name, usual_names, usual_words)
        except _AmbiguousColumn as error:
            remedy = (
                f"say which with {option} NAME"
                if name is None and names.has_options
                else "give one of them another name in the file"
            )
            return BinwatchError(f"{file}: {error} may each be the {role}; {remedy}")
        if column is None and name:
            remedy = f"correct {option}" if names.has_options else "name it in the file"
            return BinwatchError(f"{file}: no column {quote_value(name)}, only {present}; {remedy}")
        if column is None and role in ("bin", "quantity"):
            return BinwatchError(
                f"{file}: no column was recognised as the {role}, only {present}; say which with {option}"
                " NAME, or add a first line that names the columns, such as bin,quantity"
            )
    return BinwatchError(
        f"{file}: one column for both bin and quantity; say which with --bin-column and --quantity-column"
    )


def _find_column(
    header: Sequence[str], name: str | None, usual_names: Sequence[str], usual_words: frozenset[str]
) -> int | None:
    """Return the position of a column in the header, or None.

    If `name` is given, the column must have it. Otherwise the first of `usual_names` that occurs is used, then a name
    that contains one of `usual_words`. Raises _AmbiguousColumn if several columns match.
    """
    plain = ["".join(_words(cell)) for cell in header]  # "Bin_ID", "BinId" and "bin id" are the same name
    if name is not None:
        matches = [i for i, cell in enumerate(header) if cell.strip().casefold() == name.strip().casefold()]
    elif usual_name := next((candidate for candidate in usual_names if candidate in plain), None):
        matches = [i for i, cell in enumerate(plain) if cell == usual_name]
    else:
        matches = [i for i, cell in enumerate(header) if usual_words & set(_words(cell))]
    if len(matches) > 1:
        raise _AmbiguousColumn(", ".join(_quoted(header[i]) for i in matches))
    return matches[0] if matches else None


def _words(name: str) -> list[str]:
    # The usual names have only these accents, so NFKD is not needed.
    plain = name.casefold().translate(str.maketrans("äöüéèóòôàá", "aoueeoooaa"))
    return re.findall(r"[a-z0-9]+", plain)


def _quoted(name: str) -> str:
    return f"'{escape_unprintable(_short(name))}'"


def _short(name: str) -> str:
    return name.strip()[:_MAX_NAME_CHARACTERS]
