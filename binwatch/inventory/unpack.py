"""Unpacks a workbook in a separate process with limited memory and CPU time: `python -m … FILE FOLDER`.

A few kilobytes of XLSX or ODS may unpack to gigabytes. A single cell at the far end of a sheet makes the table so large
that calamine aborts its process. The sizes stated in the file cannot be trusted.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

MAX_MEMORY_BYTES = 2**31
"""Maximum address space, enough for about 15 million cells."""
MAX_CPU_SECONDS = 120


def main() -> None:
    """Write the visible sheets to FOLDER/0, FOLDER/1, …, one JSON row per line, and their names to standard output."""
    from python_calamine import CalamineError, PasswordError

    file, folder = Path(sys.argv[1]), Path(sys.argv[2])
    _limit_resources()
    try:
        names = _unpack(file, folder)
    except PasswordError:
        answer: dict[str, object] = {"protected": True}
    except (CalamineError, OSError, ValueError, NotImplementedError) as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"too_large": True}
    else:
        answer = {"sheets": names}
    print(json.dumps(answer))


def _unpack(file: Path, folder: Path) -> list[str]:
    from python_calamine import SheetVisibleEnum, load_workbook

    with load_workbook(str(file)) as book:
        names = [sheet.name for sheet in book.sheets_metadata if sheet.visible is SheetVisibleEnum.Visible]
        for index, name in enumerate(names):
            with (folder / str(index)).open("w", encoding="utf-8") as out:
                for cells in book.get_sheet_by_name(name).iter_rows():
                    out.write(json.dumps([_cell(cell) for cell in cells]) + "\n")
    return names


def _cell(value: object) -> str | float:
    if isinstance(value, str | float):
        return value
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _limit_resources() -> None:
    with suppress(ImportError, OSError, ValueError):  # some systems, such as Windows, have no such limits
        import resource

        for kind, limit in (
            (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
            (resource.RLIMIT_FSIZE, MAX_MEMORY_BYTES),
            (resource.RLIMIT_CPU, MAX_CPU_SECONDS),
            (resource.RLIMIT_CORE, 0),
        ):
            _, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


if __name__ == "__main__":
    main()
