"""Finds the columns of the bin, the quantity and the article by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from binwatch.errors import BinwatchError, quote_value
from binwatch.text import escape_unprintable, preview_names

_SHOWN = 12
"""Most columns that a message lists."""

# Column names of warehouse systems, in several languages; the first that a table has is used.
_BIN = (
    *("bin", "binid", "bincode", "binno", "binnumber", "binname", "binlocation", "storagebin", "storagebinid"),
    *("locationid", "locationcode", "location", "slot", "slotid", "shelf", "behalter", "behalternummer", "lagerplatz"),
    *("lagerfach", "fach", "stellplatz", "platz", "emplacement", "casier", "bac", "ubicacion", "ubicazione", "locatie"),
    *("photo", "photoname", "image", "imagename", "filename", "file", "foto", "bild"),
)
_QUANTITY = (
    *("expectedquantity", "expectedqty", "qtyexpected", "quantity", "qty", "qtyonhand", "quantityonhand", "onhandqty"),
    *("onhandquantity", "onhand", "stockqty", "stockquantity", "bookquantity", "bookqty", "systemqty", "expected"),
    *("sollmenge", "sollbestand", "buchbestand", "bestand", "menge", "anzahl", "stuck", "stuckzahl", "quantite"),
    *("qte", "stock", "cantidad", "existencias", "quantita", "giacenza", "aantal", "units", "pieces", "pcs", "items"),
    "count",
)
_ARTICLE = (
    *("sku", "skuid", "article", "articleno", "articlenumber", "articleid", "itemno", "itemnumber", "itemid", "item"),
    *("productid", "productcode", "product", "partnumber", "partno", "material", "materialnumber", "fcsku", "asin"),
    *("artikel", "artikelnummer", "artikelnr", "materialnummer", "reference", "articulo", "articolo"),
)
_BIN_WORDS = frozenset({"bin", "location", "slot", "lagerplatz", "behalter", "emplacement", "ubicacion"})
_QUANTITY_WORDS = frozenset({"qty", "quantity", "menge", "bestand", "anzahl", "quantite", "qte", "cantidad"})


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Names of columns given by the user; None: detect the column by its name."""

    bin: str | None = None
    quantity: str | None = None
    article: str | None = None
    kept: tuple[str, ...] = ()
    """Further columns whose texts are kept, such as the bin's location."""
    options: bool = field(default=True, kw_only=True)
    """Whether the command has options for the names; messages depend on it."""


@dataclass(frozen=True, slots=True)
class InventoryColumns:
    """Positions of the columns in a table, counted from 0."""

    bin: int
    quantity: int
    article: int | None
    kept: tuple[int, ...]
    said: str
    """The columns in words, such as "bin from 'Bin ID', quantity from 'Expected Qty'"."""


class _Ambiguous(Exception):
    pass


def find_columns(header: Sequence[str], named: ColumnNames) -> InventoryColumns | None:
    """The columns, if `header` is a row that names them; else None."""
    try:
        at = _one(header, named.bin, _BIN, _BIN_WORDS), _one(header, named.quantity, _QUANTITY, _QUANTITY_WORDS)
        article = _one(header, named.article, _ARTICLE, frozenset())
        kept = [_one(header, name, (), frozenset()) for name in named.kept]
    except _Ambiguous:
        return None
    if at[0] is None or at[1] is None or at[0] == at[1] or (named.article and article is None) or None in kept:
        return None
    taken = {"bin": at[0], "quantity": at[1], "article": None if article in at else article}
    said = ", ".join(f"{what} from {_quoted(header[index])}" for what, index in taken.items() if index is not None)
    found = tuple(index for index in kept if index is not None)
    return InventoryColumns(at[0], at[1], taken["article"], found, said)


def explain(file: Path, header: Sequence[str], named: ColumnNames) -> BinwatchError:
    """The error for a file whose columns were not found; `header` is the fullest of its first rows."""
    cells = [cell for cell in header if cell.strip()]
    found = preview_names([_short(cell) for cell in cells], _SHOWN)
    wanted = (
        ("bin", named.bin, _BIN, _BIN_WORDS),
        ("quantity", named.quantity, _QUANTITY, _QUANTITY_WORDS),
        ("article", named.article, (), frozenset[str]()),
        *(("keep", name, (), frozenset[str]()) for name in named.kept),
    )
    for what, name, known, words in wanted:
        option = f"--{what}-column"
        try:
            missing = _one(header, name, known, words) is None and (name or what in ("bin", "quantity"))
        except _Ambiguous as error:
            mend = (
                f"say which with {option} NAME"
                if name is None and named.options
                else "give one of them another name in the file"
            )
            return BinwatchError(f"{file}: {error} may each be the {what}; {mend}")
        if missing and name:
            mend = f"correct {option}" if named.options else "name it in the file"
            return BinwatchError(f"{file}: no column {quote_value(name)}, only {found or 'nothing'}; {mend}")
        if missing:
            return BinwatchError(
                f"{file}: no column was recognised as the {what}, only {found or 'nothing'}; say which with {option}"
                " NAME, or add a first line that names the columns, such as bin,quantity"
            )
    return BinwatchError(
        f"{file}: one column for both bin and quantity; say which with --bin-column and --quantity-column"
    )


def _one(header: Sequence[str], name: str | None, known: Sequence[str], words: frozenset[str]) -> int | None:
    """The only column with the given name, else with the first matching known name, else with one of the words."""
    if name is not None:
        same = [index for index, cell in enumerate(header) if cell.strip().casefold() == name.strip().casefold()]
        return _only(header, same)
    plain = ["".join(_words(cell)) for cell in header]  # "Bin_ID", "BinId" and "bin id" are one name
    for candidate in known:
        if candidate in plain:
            return _only(header, [index for index, cell in enumerate(plain) if cell == candidate])
    return _only(header, [index for index, cell in enumerate(header) if words & set(_words(cell))])


def _only(header: Sequence[str], at: list[int]) -> int | None:
    if len(at) > 1:
        raise _Ambiguous(", ".join(_quoted(header[index]) for index in at))
    return at[0] if at else None


def _words(name: str) -> list[str]:
    # Only the accents of the known names, so NFKD is not needed.
    plain = name.casefold().translate(str.maketrans("äöüéèóòôàá", "aoueeoooaa"))
    return re.findall(r"[a-z0-9]+", plain)


def _quoted(name: str) -> str:
    return f"'{escape_unprintable(_short(name))}'"


def _short(name: str) -> str:
    return name.strip()[:60]
