"""Renders a document as one HTML file that includes its pictures, for sending and printing."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from pathlib import Path

from binwatch.documents import PICTURE_SIDE, Cell, Document, PhotoLink, Sheet, relative_url

MAX_ROWS = 2_000
"""Maximum number of rows of a sheet. Browsers are slow with more."""
_STYLE = f"""
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ border-bottom: 1px solid #8886; padding: .3rem .6rem; text-align: left; vertical-align: top; }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
img {{ display: block; max-width: {PICTURE_SIDE}px; }}
"""


def render_page(document: Document, path: Path) -> str:
    """Render the HTML of the document for a file at `path`."""
    lines = "".join(f"<p>{escape(line)}</p>" for line in document.summary)
    sections = "".join(_render_sheet(sheet, document, path) for sheet in document.sheets)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Binwatch: {escape(document.title)}</title><style>{_STYLE}</style>"
        f"<h1>{escape(document.title)}</h1>{lines}{sections}</html>\n"
    )


def _render_sheet(sheet: Sheet, document: Document, path: Path) -> str:
    heading = f'<h2 id="{sheet.slug}">{escape(sheet.name)}: {len(sheet.rows):,}</h2>'
    if not sheet.rows:
        return f"{heading}<p>None.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in sheet.columns)
    rows = "".join(
        "<tr>" + "".join(_render_cell(*cell, document, path) for cell in zip(sheet.columns, row, strict=True)) + "</tr>"
        for row in sheet.rows[:MAX_ROWS]
    )
    is_truncated = len(sheet.rows) > MAX_ROWS
    note = f"<p>The first {MAX_ROWS:,} of {len(sheet.rows):,}: other formats have all.</p>" if is_truncated else ""
    return f"{heading}{note}<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _render_cell(column: str, cell: Cell, document: Document, path: Path) -> str:
    if isinstance(cell, PhotoLink):
        jpeg = document.pictures.get(cell.path)
        picture = f'<img alt="" src="data:image/jpeg;base64,{b64encode(jpeg).decode()}">' if jpeg else ""
        return f'<td><a href="{escape(relative_url(cell.path, path))}">{picture}{escape(cell.text)}</a></td>'
    if isinstance(cell, float):
        return f'<td class="number">{f"{cell:.4f}" if column.startswith("how odd") else f"{cell:.0%}"}</td>'
    attributes = ' class="number"' if isinstance(cell, int) else ""
    return f"<td{attributes}>{escape('' if cell is None else str(cell))}</td>"
