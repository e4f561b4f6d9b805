"""Counts beside what is expected, recorded, ranked and written."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from binwatch.bundle import Bundle, Card
from binwatch.conformal import PValues
from binwatch.console import progress_console
from binwatch.counts import Suspicion
from binwatch.documents import Document
from binwatch.documents.formats import write
from binwatch.inventory.reading import InventoryQuantity
from binwatch.records.store import Store
from binwatch.settings import Settings
from binwatch.text import visible
from worker.check.count import Counting, start
from worker.check.document import Pictures, sheets
from worker.check.findings import Findings, find
from worker.check.folder import ScannedFolder
from worker.check.records import missing, open_records, read_counts, record_counts, record_expected, url_of
from worker.check.wanted import Wanted


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of it."""

    findings: Findings
    counted: int
    """Photos that were counted now."""


def compare(
    wanted: Wanted,
    settings: Settings,
    folder: ScannedFolder,
    expected: Sequence[InventoryQuantity],
    bundle: Bundle,
    begun: Counting | None,
    say: Callable[[str], object],
) -> CheckResult:
    """Record, compare, rank and write. `begun` has the counts of all photos if there were no records before."""
    with open_records(wanted.database) as database:
        card, store = bundle.card, Store(database, settings.bin_naming)
        store.use_model(card.version, card.calibration)
        record_expected(database, store, settings.bucket, wanted.expected, expected)
        pictures = Pictures(expected)
        new = missing(database, settings.bucket, card, folder.photos)
        if new:
            with _progress(len(new)) as advance:
                record_counts(store, settings.bucket, begun or start(settings, bundle, new), advance, pictures.see)
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


@contextmanager
def _progress(photos: int) -> Iterator[Callable[[int], object]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=progress_console()) as progress:
        bar = progress.add_task("counted", total=photos)
        yield lambda more: progress.advance(bar, more)


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
        "BINWATCH_DATABASE_URL": url_of(wanted.database.resolve()),
        "BINWATCH_PHOTO_DIR": str(wanted.photos.resolve()),
    }
    given = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"to see them in a browser: {given} binwatch monitor serve"


def _shown(path: Path) -> str:
    return visible(str(path))
