"""Which columns of a table hold the bin, the quantity and the article, by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from binwatch.errors import BinwatchError, shown
from binwatch.text import some_of, visible

_SHOWN = 12
"""Columns that a message lists."""

# As warehouse systems name them, in the languages of those that were asked for; the first that a table has is taken.
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
    """Names of columns as a person gave them; None leaves it to the names in the table."""

    bin: str | None = None
    quantity: str | None = None
    article: str | None = None
    kept: tuple[str, ...] = ()
    """Columns whose texts are passed on, such as where the bin stands."""
    options: bool = field(default=True, kw_only=True)
    """Whether a person can name them by options of the command; else only in the file."""


@dataclass(frozen=True, slots=True)
class InventoryColumns:
    """Where the columns of a table stand, counted from 0, and what they are called."""

    bin: int
    quantity: int
    article: int | None
    kept: tuple[int, ...]
    said: str
    """As in "bin from 'Bin ID', quantity from 'Expected Qty'"."""


class _Ambiguous(Exception):
    pass


def find_columns(header: Sequence[str], named: ColumnNames) -> InventoryColumns | None:
    """The columns, if `header` is a row that names them; None if it is not."""
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
    """Why the columns were not found in a file whose fullest first row is `header`."""
    cells = [cell for cell in header if cell.strip()]
    found = some_of([_short(cell) for cell in cells], _SHOWN)
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
            return BinwatchError(f"{file}: no column {shown(name)}, only {found or 'nothing'}; {mend}")
        if missing:
            return BinwatchError(
                f"{file}: no column was recognised as the {what}, only {found or 'nothing'}; say which with {option}"
                " NAME, or add a first line that names the columns, such as bin,quantity"
            )
    return BinwatchError(
        f"{file}: one column for both bin and quantity; say which with --bin-column and --quantity-column"
    )


def _one(header: Sequence[str], name: str | None, known: Sequence[str], words: frozenset[str]) -> int | None:
    """The one column with that name, or by the best of the known names, or else with one of the words in its name."""
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
    # NFKD by hand would do more than is needed: these are the accents that the known names have.
    plain = name.casefold().translate(str.maketrans("äöüéèóòôàá", "aoueeoooaa"))
    return re.findall(r"[a-z0-9]+", plain)


def _quoted(name: str) -> str:
    return f"'{visible(_short(name))}'"


def _short(name: str) -> str:
    return name.strip()[:60]
