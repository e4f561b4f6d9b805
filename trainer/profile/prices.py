"""The cost of training: measured durations times the prices in the user's list."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from binwatch.errors import quote_value
from binwatch.numbers import parse_float
from trainer.errors import ConfigError
from trainer.profile.measure import Profile

REQUIRED_COLUMNS = ("machine", "usd_per_hour")
SECONDS_PER_HOUR = 3600.0
COMMENT = "#"
"""Character that starts a comment line."""


@dataclass(frozen=True)
class Price:
    """The price of a machine in the user's list."""

    machine: str
    usd_per_hour: float
    speed: float | None
    """Speed relative to the measured machine; None if it is not known."""


@dataclass(frozen=True)
class Cost:
    """Cost of training on a machine in US dollars, at its speed in the price list, or else at the measured speed."""

    price: Price
    before_first_epoch: float
    epoch: float
    million_photos: float
    """Cost of training on a million photos, for one epoch."""


def costs(profile: Profile, prices: list[Price]) -> list[Cost]:
    """Calculate the cost of training on each machine."""

    def cost(price: Price) -> Cost:
        usd_per_second = price.usd_per_hour / SECONDS_PER_HOUR / (price.speed or 1.0)
        return Cost(
            price,
            before_first_epoch=profile.once_seconds * usd_per_second,
            epoch=profile.epoch_seconds * usd_per_second,
            million_photos=1e6 / profile.training * usd_per_second,
        )

    return [cost(price) for price in prices]


def read_prices(file: Path) -> tuple[list[Price], str]:
    """Read the prices in a CSV file, and its comments (lines that start with #) joined into one text.

    Columns: machine, usd_per_hour, and optionally speed. Raises ConfigError, which names the line.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error})") from error
    notes = [line.lstrip(COMMENT).strip() for line in lines if line.startswith(COMMENT)]
    numbered = [(n, line) for n, line in enumerate(lines, start=1) if line and not line.startswith(COMMENT)]
    rows = csv.DictReader(line for _, line in numbered)
    missing = [name for name in REQUIRED_COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise ConfigError(f"{file}: no column {missing[0]!r}; it needs machine and usd_per_hour, and may have speed")
    prices = [_parse_price(file, line_number, row) for (line_number, _), row in zip(numbered[1:], rows, strict=True)]
    if not prices:
        raise ConfigError(f"{file}: has no machines")
    return prices, " ".join(notes)


def _parse_price(file: Path, line: int, row: dict[str, str | None]) -> Price:
    machine, usd_per_hour = (row["machine"] or "").strip(), _parse_positive(file, line, row, "usd_per_hour")
    if not machine or usd_per_hour is None:
        empty = "usd_per_hour" if machine else "machine"
        raise ConfigError(f"{file}, line {line}: {empty} is empty")
    return Price(machine, usd_per_hour, _parse_positive(file, line, row, "speed"))


def _parse_positive(file: Path, line: int, row: dict[str, str | None], column: str) -> float | None:
    """Parse a number above 0; None if the cell is empty. Raises ConfigError."""
    text = (row.get(column) or "").strip()
    if not text:
        return None
    value = parse_float(text)
    if value is None or not 0 < value < float("inf"):
        raise ConfigError(f"{file}, line {line}: {column} is {quote_value(text)}, not a number above 0")
    return value
