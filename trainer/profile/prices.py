"""The cost of training: measured seconds times the user's prices."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from binwatch.errors import quote_value
from binwatch.numbers import parse_float
from trainer.errors import ConfigError
from trainer.profile.measure import Profile

COLUMNS = ("machine", "usd_per_hour", "speed")
HOUR = 3600.0
MILLION = 1e6
COMMENT = "#"


@dataclass(frozen=True)
class Price:
    """One machine of the user's price list."""

    machine: str
    usd_per_hour: float
    speed: float | None
    """Speed as a multiple of the measured machine's; None if it is not known."""


@dataclass(frozen=True)
class Cost:
    """Cost of training on one machine, in US dollars, at its speed in the price list or else at the measured speed."""

    price: Price
    before_first_epoch: float
    epoch: float
    million_photos: float
    """Cost of training on a million photos once."""


def costs(found: Profile, prices: list[Price]) -> list[Cost]:
    """The cost of training on each machine."""

    def cost(price: Price) -> Cost:
        usd_per_second = price.usd_per_hour / HOUR / (price.speed or 1.0)
        return Cost(
            price,
            before_first_epoch=found.once_seconds * usd_per_second,
            epoch=found.epoch_seconds * usd_per_second,
            million_photos=MILLION / found.training * usd_per_second,
        )

    return [cost(price) for price in prices]


def read_prices(file: Path) -> tuple[list[Price], str]:
    """The prices in a CSV file, and its comments (lines that start with #) as one text.

    Columns: machine, usd_per_hour, and optionally speed. Raises ConfigError that names the line.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error})") from error
    notes = [line.lstrip(COMMENT).strip() for line in lines if line.startswith(COMMENT)]
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line and not line.startswith(COMMENT)]
    rows = csv.DictReader(line for _, line in numbered)
    unknown = [name for name in COLUMNS[:2] if name not in (rows.fieldnames or ())]
    if unknown:
        raise ConfigError(f"{file}: no column {unknown[0]!r}; it needs machine and usd_per_hour, and may have speed")
    prices = [_price(file, number, row) for (number, _), row in zip(numbered[1:], rows, strict=True)]
    if not prices:
        raise ConfigError(f"{file}: has no machines")
    return prices, " ".join(notes)


def _price(file: Path, line: int, row: dict[str, str | None]) -> Price:
    name, per_hour = (row["machine"] or "").strip(), _positive(file, line, row, "usd_per_hour")
    if not name or per_hour is None:
        missing = "usd_per_hour" if name else "machine"
        raise ConfigError(f"{file}, line {line}: {missing} is empty")
    return Price(name, per_hour, _positive(file, line, row, "speed"))


def _positive(file: Path, line: int, row: dict[str, str | None], column: str) -> float | None:
    text = (row.get(column) or "").strip()
    if not text:
        return None
    value = parse_float(text)
    if value is None or not 0 < value < float("inf"):
        raise ConfigError(f"{file}, line {line}: {column} is {quote_value(text)}, not a number above 0")
    return value
