"""From a folder of photos and an inventory file to the list of bins. What is wrong with either is said first."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from binwatch.bundle import Bundle, Card
from binwatch.conformal import PValues
from binwatch.console import progress_console
from binwatch.counts import Suspicion
from binwatch.documents import Document
from binwatch.documents.formats import check_format, write
from binwatch.errors import BinwatchError
from binwatch.inventory.bins import BinIndex
from binwatch.inventory.columns import Named
from binwatch.inventory.importing import CHUNK, new_expectation
from binwatch.inventory.reading import InventoryQuantity, InventoryReport, Refusals, read_expected
from binwatch.inventory.tables import first_bytes, open_table
from binwatch.records.engine import cause, connect
from binwatch.records.schema import UnknownSchemaError, prepare
from binwatch.records.store import Store
from binwatch.records.tables import Bin, Expectation
from binwatch.settings import Settings
from binwatch.text import visible
from worker.check.count import count, missing, read_counts
from worker.check.document import Pictures, sheets
from worker.check.findings import Findings, find
from worker.check.folder import ScannedFolder, look_through

RECORDS = "records.db"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asked for."""

    photos: Path
    expected: Path
    out: Sequence[Path]
    records: Path
    """Folder of the records; made if it is not there."""
    named: Named

    def owns(self, file: Path) -> bool:
        """Whether a file is one of the check itself, and so none of the photos' folder."""
        path = file.resolve()
        written = any(path.parent == out.resolve().parent and path.name.startswith(f"{out.stem}.") for out in self.out)
        return written or path == self.expected.resolve() or path.is_relative_to(self.records.resolve())


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of it."""

    findings: Findings
    counted: int
    """Photos that were counted now."""


def run(wanted: Wanted, settings: Settings, say: Callable[[str], object]) -> CheckResult:
    """Count, compare, rank and write; `say` is told a line at a time. Raises BinwatchError."""
    for path in wanted.out:
        check_format(path)
    first_bytes(wanted.expected)
    folder = look_through(wanted.photos, wanted.owns, settings.bin_naming)
    expected = _read(wanted, folder, say)
    bundle = Bundle(settings.model_dir)
    try:
        with closing(_Records(wanted.records)) as records:
            return _check(wanted, settings, folder, expected, bundle, records.engine, say)
    except SQLAlchemyError as error:
        raise BinwatchError(
            f"{wanted.records}: the records cannot be used ({cause(error)}); name another folder with --records"
        ) from error


def _check(
    wanted: Wanted,
    settings: Settings,
    folder: ScannedFolder,
    expected: list[InventoryQuantity],
    bundle: Bundle,
    database: Engine,
    say: Callable[[str], object],
) -> CheckResult:
    card, store = bundle.card, Store(database, settings.bin_naming)
    store.use_model(card.version, card.calibration)
    _record(database, store, settings.bucket, wanted.expected, expected)
    pictures = Pictures(expected)
    new = missing(database, settings.bucket, card, folder.photos)
    if new:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=progress_console()) as progress:
            bar = progress.add_task("counted", total=len(new))
            count(settings, bundle, store, new, lambda photos: progress.advance(bar, photos), pictures.see)
    values = PValues(card.calibration) if card.calibration else None
    counts = read_counts(database, settings.bucket, card)
    findings = find(folder, counts, expected, values, settings.flag_level, settings.flag_direction)
    failed = sum(one.bin is not None for one in findings.failed)
    done = CheckResult(findings, len(new) - failed)
    lines = _summary(done, folder, settings, card)
    with ThreadPoolExecutor(settings.fetch_threads) as pool:
        document = Document(
            "Bins to look at", lines, sheets(findings, folder), pictures.of(findings, settings.limits, pool)
        )
    for line in lines:
        say(line)
    for path in wanted.out:
        say(f"written, the oddest bins first: {', '.join(map(_shown, write(document, path)))}")
    say(_how_to_open(wanted))
    return done


def _read(wanted: Wanted, folder: ScannedFolder, say: Callable[[str], object]) -> list[InventoryQuantity]:
    """The inventory file. Refused before anything is counted if it has nothing to do with the photos."""
    report = InventoryReport(wanted.expected)
    listed = wanted.out[0].with_name(f"{wanted.out[0].stem}.refused-rows.csv")
    with suppress(OSError):  # who may not remove it cannot write a list either, and is told then
        listed.unlink()
    with Refusals(listed, report) as refusals:
        bins = BinIndex(photo.bin for photo in folder.photos)
        expected = list(read_expected(open_table(wanted.expected, wanted.named), bins, refusals))
    for line in report.lines():
        say(line)
    if not report.meeting:
        raise BinwatchError(
            f"{wanted.expected}: no row is of a bin that has a photo; photos are named after bins, such as"
            f" {visible(folder.photos[0].key)!r}: rename them, or say which column has such names with --bin-column"
        )
    return expected


class _Records:
    """Records in a folder, with this release's schema."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BinwatchError(
                f"{folder}: cannot be made ({error.strerror}); name another folder for the records with --records"
            ) from error
        self.engine = connect(_url(folder))
        try:
            prepare(self.engine)
        except UnknownSchemaError as error:
            raise BinwatchError(
                f"{folder}: the records are not of this release: {error}; or name another folder with --records"
            ) from error

    def close(self) -> None:
        self.engine.dispose()


def _record(database: Engine, store: Store, bucket: str, file: Path, expected: list[InventoryQuantity]) -> None:
    """Record the quantities that are news, for the pages. This file is what holds now, whenever it was last changed."""
    current = (
        select(Bin.bin_id, Expectation.quantity)
        .join(Expectation, Expectation.id == Bin.expectation_id)
        .where(Bin.bucket == bucket)
    )
    with database.connect() as connection:
        known = {row.bin_id: row.quantity for row in connection.execute(current)}
    now, source = datetime.now(UTC), visible(file.name)
    news = [new_expectation(one, bucket, source, "", now) for one in expected if known.get(one.bin) != one.quantity]
    for start in range(0, len(news), CHUNK):
        store.add_expectations(news[start : start + CHUNK])


def _summary(done: CheckResult, folder: ScannedFolder, settings: Settings, card: Card) -> list[str]:
    found = done.findings
    compared, wrong, photos = len(found.compared), found.wrong, len(folder.photos)
    failed = sum(one.bin is not None for one in found.failed)
    several = sum(number > 1 for number in found.photos_of.values())
    lines = [
        f"{_many(photos, 'photo')} in {_shown(folder.path)}: {done.counted:,} counted now with model {card.version},"
        f" {photos - done.counted - failed:,} before"
    ]
    others = len(found.failed) - found.failed_photos
    left = ((found.failed_photos, "photo", "counted"), (others, "other file", "looked at"))
    said = [f"{_many(number, what)} not {done_to}" for number, what, done_to in left if number]
    if said:
        lines.append(f"{', '.join(said)}: 'Failed' says what to do")
    if found.unexpected:
        bins = "a bin" if len(found.unexpected) == 1 else "bins"
        lines.append(f"{_many(len(found.unexpected), 'photo')} of {bins} that the inventory file does not have")
    if found.without_photo:
        lines.append(f"{_many(len(found.without_photo), 'bin')} of the inventory file without a photo")
    if several:
        lines.append(f"{_many(several, 'bin')} with several photos: each is compared by itself")
    lines.append(f"{_many(compared, 'photo')} compared: {compared - wrong:,} as expected, {wrong:,} not")
    if card.calibration is None:
        lines.append("the model has no calibration: bins are ranked by its probability of what is expected")
    else:
        lines.append(
            f"look first at {_many(found.flagged, 'bin')}: {_ODD[settings.flag_direction]} (p-value at most"
            f" {settings.flag_level:g}); about {settings.flag_level * compared:.0f} would be if all bins held it"
        )
    return lines


_ODD = {
    Suspicion.EITHER: "the photo is odd for what is expected",
    Suspicion.MISSING: "it looks as if items were missing",
    Suspicion.SURPLUS: "it looks as if there were more than expected",
}


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _how_to_open(wanted: Wanted) -> str:
    variables = {
        "BINWATCH_DATABASE_URL": _url(wanted.records.resolve()),
        "BINWATCH_PHOTO_DIR": str(wanted.photos.resolve()),
    }
    given = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"to see them in a browser: {given} binwatch monitor serve"


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / RECORDS}"


def _shown(path: Path) -> str:
    return visible(str(path))
