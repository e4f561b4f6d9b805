"""What a person asked a check for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from binwatch.inventory.columns import Named


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asked for."""

    photos: Path
    expected: Path
    out: Sequence[Path]
    records: Path
    """Folder of the records; made if it is not there."""
    named: Named

    @property
    def database(self) -> Path:
        """File of the records."""
        return self.records / "records.db"

    def owns(self, file: Path) -> bool:
        """Whether a file is one of the check itself, and so none of the photos' folder."""
        path = file.resolve()
        written = any(path.parent == out.resolve().parent and path.name.startswith(f"{out.stem}.") for out in self.out)
        return written or path == self.expected.resolve() or path.is_relative_to(self.records.resolve())
