"""Records the counts, compares them with the expected quantities, and writes the ranked lists."""

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
from worker.check.count import RunningCount, start_counting
from worker.check.document import Pictures, sheets
from worker.check.findings import Findings, compare_counts
from worker.check.folder import ScannedFolder
from worker.check.options import CheckOptions
from worker.check.records import (
    count_outdated_bins,
    latest_variant,
    open_records,
    read_counts,
    record_counts,
    record_expectations,
    uncounted_photos,
)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check."""

    findings: Findings
    counted: int
    """Number of photos counted in this run."""
    variant: str
    """Variant of the model that counted the most recent photo."""


def count_and_compare(
    options: CheckOptions,
    settings: Settings,
    folder: ScannedFolder,
    expected: Sequence[InventoryQuantity],
    bundle: Bundle,
    running: RunningCount | None,
    print_line: Callable[[str], object],
) -> CheckResult:
    """Record the counts, compare them with the expected quantities, and write the ranked lists.

    `running` is a count of all photos that has already started, or None if there are records.
    """
    with open_records(options.database) as database:
        card, store = bundle.card, Store(database, settings.bin_naming, settings.slicing)
        store.use_model(card.version, card.calibration)
        record_expectations(database, store, settings.bucket, options.inventory, expected)
        pictures = Pictures(expected)
        uncounted = uncounted_photos(database, settings.bucket, card, folder.photos)
        if uncounted:
            running = running or start_counting(settings, bundle, uncounted)
            for path in options.lists:
                import_library(path)  # loaded here, while photos are counted in the background
            with progress_bar("counted", len(uncounted), TimeRemainingColumn()) as advance:
                record_counts(store, settings.bucket, running, advance, pictures.add_candidate)
        p_values = PValueTable(card.calibration) if card.calibration else None
        counts = read_counts(database, settings.bucket, card)
        findings = compare_counts(folder, counts, expected, p_values, settings.flag_level, settings.flag_direction)
        failed = sum(failure.bin is not None for failure in findings.failed)
        variant = latest_variant(database, settings.bucket, card)
        result = CheckResult(findings, len(uncounted) - failed, variant)
        lines = _summary(result, options, folder, settings, card)
        with ThreadPoolExecutor(settings.file_threads) as pool:
            document = Document(
                "Bins to look at",
                [*lines, *_LEGEND],
                sheets(findings, folder, options.column_names.kept),
                pictures.of_oddest(findings, settings.limits, pool),
            )
        for line in lines:
            print_line(line)
        for path in options.lists:
            files = ", ".join(escape_unprintable(str(file)) for file in write_document(document, path))
            print_line(f"written, the oddest bins first: {files}")
        outdated_bins = count_outdated_bins(database, settings.bucket, folder.photos, expected)
        for line in _monitor_instructions(options, settings, outdated_bins):
            print_line(line)
        return result


def _summary(
    result: CheckResult, options: CheckOptions, folder: ScannedFolder, settings: Settings, card: Card
) -> list[str]:
    """Return the lines that sum up the check."""
    findings, photos = result.findings, len(folder.photos)
    failed = sum(failure.bin is not None for failure in findings.failed)
    lines = [
        f"{count_noun(photos, 'photo')} in {escape_unprintable(str(folder.path))}: {result.counted:,} counted now with"
        f" model {card.version}, {photos - result.counted - failed:,} before and kept in"
        f" {escape_unprintable(str(options.records))}"
    ]
    failures = []
    if findings.failed_photo_count:
        failures.append(f"{count_noun(findings.failed_photo_count, 'photo')} not counted")
    if other_files := len(findings.failed) - findings.failed_photo_count:
        failures.append(f"{count_noun(other_files, 'other file')} not read")
    if failures:
        lines.append(f"{', '.join(failures)}: 'Failed' says what to do")
    if findings.unexpected:
        bins = pluralize(len(findings.unexpected), "a bin", "bins")
        lines.append(
            f"{count_noun(len(findings.unexpected), 'photo')} of {bins} that the inventory file does not have"
            f" ({preview_names([photo.key for photo, _ in findings.unexpected], 3)}); if photos are not named after"
            " bins, see --bin-pattern and --bin-list"
        )
    if findings.without_photo:
        lines.append(f"{count_noun(len(findings.without_photo), 'bin')} of the inventory file without a photo")
    if several := sum(n > 1 for n in findings.photos_per_bin.values()):
        lines.append(f"{count_noun(several, 'bin')} with several photos: each is compared separately")
    return lines + _comparison_summary(result, settings, card)


def _comparison_summary(result: CheckResult, settings: Settings, card: Card) -> list[str]:
    findings, metrics = result.findings, card.metrics_of(result.variant)
    compared, differing, judged = len(findings.compared), findings.differing_count, findings.judged_count
    accuracy = ""
    if differing and "test" in metrics:
        share = metrics["test"].accuracy.value
        accuracy = f"; the model counts {share:.0%} of its test photos right, so it is wrong about many of these"
    lines = [
        f"{count_noun(compared, 'photo')} compared: {compared - differing:,} as expected, {differing:,} not{accuracy}"
    ]
    if card.calibration is None:
        return [*lines, "the model has no calibration: bins are ranked by its probability of the expected quantity"]
    lines.append(_flag_summary(findings.flagged_count, judged, settings))
    if judged < compared:
        lines.append(
            f"{count_noun(compared - judged, 'photo')} not judged: the model cannot predict the expected quantity, or"
            " has no calibration photos of it, so check these bins yourself"
        )
    return lines


def _flag_summary(flagged: int, judged: int, settings: Settings) -> str:
    false_alarms = settings.flag_level * judged
    expected = f"about {false_alarms:.0f}" if false_alarms >= 1 else "fewer than 1"
    chance = f"{expected} would be flagged by chance if all {count_noun(judged, 'record')} were correct"
    if not flagged:
        return f"no bin stands out: none has a p-value of at most {settings.flag_level:g}; {chance}"
    reason = f"{_FLAG_REASONS[settings.flag_direction]} (p-value at most {settings.flag_level:g})"
    all_chance = ": these may all be chance" if flagged <= false_alarms else ""
    return f"look first at {count_noun(flagged, 'bin')}: {reason}; {chance}{all_chance}"


_FLAG_REASONS = {
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


_MONITOR_SETTINGS = ("bucket", "model_dir", "flag_level", "flag_direction", "slice_pattern", "slice_depth")
"""Settings that affect both the list and the monitor's pages, and must be the same for both."""


def _monitor_instructions(options: CheckOptions, settings: Settings, outdated_bins: int) -> list[str]:
    """Return the lines that tell how to open the monitor with the settings of this check."""
    variables = {
        "BINWATCH_DATABASE_URL": sqlite_url(options.database.resolve()),
        "BINWATCH_PHOTO_DIR": str(options.photos.resolve()),
    }
    # An option may have reset a setting of the environment to its default.
    environment = load_settings()
    for name in _MONITOR_SETTINGS:
        value = getattr(settings, name)
        if value != Settings.model_fields[name].default or value != getattr(environment, name):
            variables[Settings.variable(name)] = str(value.resolve() if isinstance(value, Path) else value)
    assignments = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    extra = "" if find_spec("fastapi") else " (install the extra monitor first)"
    lines = [
        f"to see them in a browser{extra}: {assignments} binwatch monitor serve",
        "then open the address that it prints; Ctrl-C ends it",
    ]
    if outdated_bins:
        lines.append(
            f"its pages also show {count_noun(outdated_bins, 'bin')} of earlier runs without a photo or a quantity now;"
            " to leave them out, name a new folder with --records"
        )
    return lines
