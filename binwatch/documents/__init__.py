"""Documents for people: tables as XLSX, HTML, CSV, Parquet and JSON files (writers.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

PICTURE_SIDE = 128
"""Longer side of a picture, in pixels."""

P_VALUE_COLUMNS = ("how odd (p-value)", "how odd if missing", "how odd if surplus")
"""Columns of p-values."""


class PhotoLink(NamedTuple):
    """A photo's key, and its file."""

    text: str
    path: Path


Cell = str | int | float | PhotoLink | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table. `name` has at most 31 characters, Excel's limit; `slug` is for file names, JSON and HTML ids."""

    name: str
    slug: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Document:
    """Sheets, the most important one first; `pictures` are JPEGs for its rows, by photo file."""

    title: str
    summary: Sequence[str]
    sheets: Sequence[Sheet]
    pictures: Mapping[Path, bytes] = field(default_factory=dict)


def relative_url(path: Path, document: Path) -> str:
    """URL of a photo relative to the document, so that both can be moved together."""
    photos, documents = _resolve_folder(path.parent.absolute()), _resolve_folder(document.parent.absolute())
    return quote(os.path.relpath(photos / path.name, documents))


@cache
def _resolve_folder(folder: Path) -> Path:
    """The folder without links, looked up once: for each file, that would take longer than writing its row."""
    return folder.resolve()


def plain_value(cell: Cell) -> str | int | float | None:
    """A cell's value for formats without links."""
    return cell.text if isinstance(cell, PhotoLink) else cell


def plain_rows(sheet: Sheet) -> Iterator[list[str | int | float | None]]:
    """The rows of a sheet, without links."""
    for row in sheet.rows:
        yield [plain_value(cell) for cell in row]
