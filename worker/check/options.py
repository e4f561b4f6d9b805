"""The options of a check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from binwatch.documents.writers import output_files
from binwatch.errors import BinwatchError
from binwatch.inventory.columns import ColumnNames
from worker.check.layout import FAILED, UNEXPECTED, WITHOUT_PHOTO


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The options of the command `check`."""

    photos: Path
    expected: Path
    out: Sequence[Path]
    records: Path
    """Folder of the records; created if it does not exist."""
    named: ColumnNames

    @property
    def refused_rows(self) -> Path:
        """File that lists the refused rows of the inventory file."""
        return self.out[0].with_name(f"{self.out[0].stem}.refused-rows.csv")

    @property
    def database(self) -> Path:
        """File of the records."""
        return self.records / "records.db"

    def check_files(self, bin_list: Path | None) -> None:
        """Raise BinwatchError if an input file would be overwritten."""
        lists = (file for out in self.out for file in output_files(out, (FAILED, UNEXPECTED, WITHOUT_PHOTO)))
        written = {file.resolve() for file in (*lists, self.refused_rows)}
        for file in filter(None, (self.expected, bin_list)):
            if file.resolve() in written:
                raise BinwatchError(f"{file}: would be overwritten; name another list with --out")

    def owns(self, file: Path) -> bool:
        """Whether `file` belongs to the check itself, even if it is in the folder of photos."""
        path = file.resolve()
        # A list, or one of the files that are written beside it.
        is_list = any(path.parent == out.resolve().parent and path.name.startswith(f"{out.stem}.") for out in self.out)
        return is_list or path == self.expected.resolve() or path.is_relative_to(self.records.resolve())
