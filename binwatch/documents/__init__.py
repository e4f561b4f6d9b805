"""Documents for people: tables that are written as XLSX, HTML, CSV, Parquet and JSON files."""

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


class PhotoLink(NamedTuple):
    """A cell with a photo: `text` is its key, and `path` the file that the cell links to."""

    text: str
    path: Path


Cell = str | int | float | PhotoLink | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table. `name` has at most 31 characters, Excel's limit. `slug` is used in file names, JSON and HTML ids."""

    name: str
    slug: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Document:
    """A title, summary lines, and sheets, the most important one first."""

    title: str
    summary: Sequence[str]
    sheets: Sequence[Sheet]
    pictures: Mapping[Path, bytes] = field(default_factory=dict)
    """Photo file → JPEG, for rows that link to the photo."""


def relative_url(path: Path, document: Path) -> str:
    """Return the URL of a photo relative to the document, so that both can be moved together."""
    photos, documents = _resolve_folder(path.parent.absolute()), _resolve_folder(document.parent.absolute())
    return quote(os.path.relpath(photos / path.name, documents))


@cache
def _resolve_folder(folder: Path) -> Path:
    """Resolve symbolic links once per folder: doing so per file would take longer than writing the file's row."""
    return folder.resolve()


def plain_value(cell: Cell) -> str | int | float | None:
    """Return a cell's value for formats without links."""
    return cell.text if isinstance(cell, PhotoLink) else cell


def plain_rows(sheet: Sheet) -> Iterator[list[str | int | float | None]]:
    """Yield the rows of a sheet without links."""
    for row in sheet.rows:
        yield [plain_value(cell) for cell in row]
