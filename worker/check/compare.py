"""Records the counts, compares them with the expected quantities, and writes the ranked list."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.progress import TimeRemainingColumn

from binwatch.bundle import Bundle, Card
from binwatch.conformal import PValueTable
from binwatch.console import progress_bar
from binwatch.counts import Suspicion
from binwatch.documents import Document
from binwatch.documents.writers import import_library, write_document
from binwatch.inventory.reading import InventoryQuantity
from binwatch.records.engine import sqlite_url
from binwatch.records.store import Store
from binwatch.settings import Settings, load_settings
from binwatch.text import count_noun, escape_unprintable, pluralize, preview_names
from worker.check.count import RunningCount, start
from worker.check.document import Pictures, sheets
from worker.check.findings import Findings, find
from worker.check.folder import ScannedFolder
from worker.check.options import CheckOptions
from worker.check.records import (
    last_variant,
    left_over,
    missing,
    open_records,
    read_counts,
    record_counts,
    record_expected,
)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check."""

    findings: Findings
    counted: int
    """Photos that were counted now."""
    variant: str
    """The variant of the model that counted last."""


def compare(
    wanted: CheckOptions,
    settings: Settings,
    folder: ScannedFolder,
    expected: Sequence[InventoryQuantity],
    bundle: Bundle,
    begun: RunningCount | None,
    say: Callable[[str], object],
) -> CheckResult:
    """Record, compare, rank and write. `begun` counts all photos if there were no records before, else it is None."""
    with open_records(wanted.database) as database:
        card, store = bundle.card, Store(database, settings.bin_naming, settings.slicing)
        store.use_model(card.version, card.calibration)
        record_expected(database, store, settings.bucket, wanted.expected, expected)
        pictures = Pictures(expected)
        new = missing(database, settings.bucket, card, folder.photos)
        if new:
            counting = begun or start(settings, bundle, new)
            for path in wanted.out:
                import_library(path)  # here, since photos are counted meanwhile
            with progress_bar("counted", len(new), TimeRemainingColumn()) as advance:
                record_counts(store, settings.bucket, counting, advance, pictures.see)
        values = PValueTable(card.calibration) if card.calibration else None
        counts = read_counts(database, settings.bucket, card)
        findings = find(folder, counts, expected, values, settings.flag_level, settings.flag_direction)
        failed = sum(one.bin is not None for one in findings.failed)
        done = CheckResult(findings, len(new) - failed, last_variant(database, settings.bucket, card))
        lines = _summary(done, wanted, folder, settings, card)
        with ThreadPoolExecutor(settings.file_threads) as pool:
            document = Document(
                "Bins to look at",
                [*lines, *_LEGEND],
                sheets(findings, folder, wanted.named.kept),
                pictures.of(findings, settings.limits, pool),
            )
        for line in lines:
            say(line)
        for path in wanted.out:
            say(f"written, the oddest bins first: {', '.join(map(_shown, write_document(document, path)))}")
        for line in _how_to_open(wanted, settings, left_over(database, settings.bucket, folder.photos, expected)):
            say(line)
        return done


def _summary(
    done: CheckResult, wanted: CheckOptions, folder: ScannedFolder, settings: Settings, card: Card
) -> list[str]:
    found, measured = done.findings, card.metrics_of(done.variant)
    compared, wrong, photos = len(found.compared), found.wrong, len(folder.photos)
    failed = sum(one.bin is not None for one in found.failed)
    several = sum(number > 1 for number in found.photos_of.values())
    lines = [
        f"{count_noun(photos, 'photo')} in {_shown(folder.path)}: {done.counted:,} counted now with model"
        f" {card.version}, {photos - done.counted - failed:,} before and kept in {_shown(wanted.records)}"
    ]
    others = len(found.failed) - found.failed_photos
    left = ((found.failed_photos, "photo", "counted"), (others, "other file", "read"))
    said = [f"{count_noun(number, what)} not {done_to}" for number, what, done_to in left if number]
    if said:
        lines.append(f"{', '.join(said)}: 'Failed' says what to do")
    if found.unexpected:
        bins = pluralize(len(found.unexpected), "a bin", "bins")
        lines.append(
            f"{count_noun(len(found.unexpected), 'photo')} of {bins} that the inventory file does not have"
            f" ({preview_names([photo.key for photo, _ in found.unexpected], 3)}); if photos are not named after"
            " bins, see --bin-pattern and --bin-list"
        )
    if found.without_photo:
        lines.append(f"{count_noun(len(found.without_photo), 'bin')} of the inventory file without a photo")
    if several:
        lines.append(f"{count_noun(several, 'bin')} with several photos: each is compared separately")
    errors = ""
    if wrong and "test" in measured:
        right = measured["test"].accuracy.value
        errors = f"; the model counts {right:.0%} of its test photos right, so it is wrong about many of these"
    lines.append(f"{count_noun(compared, 'photo')} compared: {compared - wrong:,} as expected, {wrong:,} not{errors}")
    if card.calibration is None:
        lines.append("the model has no calibration: bins are ranked by its probability of the expected quantity")
    else:
        lines.append(_stands_out(found.flagged, found.judged, settings))
        if found.judged < compared:
            rest = count_noun(compared - found.judged, "photo")
            lines.append(
                f"{rest} not judged: the model cannot predict the expected quantity, or has no calibration photos of"
                " it, so check these bins yourself"
            )
    return lines


def _stands_out(flagged: int, judged: int, settings: Settings) -> str:
    by_chance = settings.flag_level * judged
    at_most = f"about {by_chance:.0f}" if by_chance >= 1 else "fewer than 1"
    chance = f"{at_most} would be flagged by chance if all {count_noun(judged, 'record')} were correct"
    odd = f"{_ODD[settings.flag_direction]} (p-value at most {settings.flag_level:g})"
    if not flagged:
        return f"no bin stands out: none has a p-value of at most {settings.flag_level:g}; {chance}"
    all_chance = ": these may all be chance" if flagged <= by_chance else ""
    return f"look first at {count_noun(flagged, 'bin')}: {odd}; {chance}{all_chance}"


_ODD = {
    Suspicion.EITHER: "the photo is odd for the expected quantity",
    Suspicion.MISSING: "it looks as if items were missing",
    Suspicion.SURPLUS: "it looks as if there were more than expected",
}


_LEGEND = (
    "verdict: look first = the count differs and is odd for the expected quantity; differs = more likely an error of"
    " the model; agrees",
    "how odd (p-value): of correct records, the share whose photo looks at least this odd; the smaller, the odder."
    " Bins are ordered by it, not by the difference in items",
    "p(0) to p(more than 5): the model's probability of each count",
)


_SHARED = ("bucket", "model_dir", "flag_level", "flag_direction", "slice_pattern", "slice_depth")
"""Settings of a check that the monitor's pages follow, too. The list and the pages must not differ in them."""


def _how_to_open(wanted: CheckOptions, settings: Settings, left_over: int) -> list[str]:
    variables = {
        "BINWATCH_DATABASE_URL": sqlite_url(wanted.database.resolve()),
        "BINWATCH_PHOTO_DIR": str(wanted.photos.resolve()),
    }
    # The environment may set what an option has set back to the default.
    environment = load_settings()
    for name in _SHARED:
        value = getattr(settings, name)
        if value != Settings.model_fields[name].default or value != getattr(environment, name):
            variables[Settings.variable(name)] = str(value.resolve() if isinstance(value, Path) else value)
    given = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    extra = "" if find_spec("fastapi") else " (install the extra monitor first)"
    lines = [
        f"to see them in a browser{extra}: {given} binwatch monitor serve",
        "then open the address that it prints; Ctrl-C ends it",
    ]
    if left_over:
        lines.append(
            f"its pages also show {count_noun(left_over, 'bin')} of earlier runs without a photo or a quantity now;"
            " to leave them out, name a new folder with --records"
        )
    return lines


def _shown(path: Path) -> str:
    return escape_unprintable(str(path))
