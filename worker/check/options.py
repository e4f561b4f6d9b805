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
    """Folder of the photos."""
    inventory: Path
    """File with the expected quantities."""
    lists: Sequence[Path]
    """Lists to write, one per format."""
    records: Path
    """Folder of the records; created if it does not exist."""
    column_names: ColumnNames

    @property
    def refused_rows(self) -> Path:
        """File that lists the refused rows of the inventory file."""
        return self.lists[0].with_name(f"{self.lists[0].stem}.refused-rows.csv")

    @property
    def database(self) -> Path:
        """SQLite file of the records."""
        return self.records / "records.db"

    def protect_inputs(self, bin_list: Path | None) -> None:
        """Raise BinwatchError if an input file would be overwritten."""
        sheets = (file for path in self.lists for file in output_files(path, (FAILED, UNEXPECTED, WITHOUT_PHOTO)))
        outputs = {file.resolve() for file in (*sheets, self.refused_rows)}
        for file in filter(None, (self.inventory, bin_list)):
            if file.resolve() in outputs:
                raise BinwatchError(f"{file}: would be overwritten; name another list with --out")

    def is_own_file(self, file: Path) -> bool:
        """Return whether `file` is read or written by the check itself, even if it is in the folder of photos."""
        path = file.resolve()
        # A list, or a file that is written beside it.
        is_list = any(
            path.parent == out.resolve().parent and path.name.startswith(f"{out.stem}.") for out in self.lists
        )
        return is_list or path == self.inventory.resolve() or path.is_relative_to(self.records.resolve())
