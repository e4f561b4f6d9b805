"""The files that `prepare` writes beside the photos: manifest, histogram, list of left-out bins, and report."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from binwatch.counts import CLASSES, class_of
from binwatch.errors import quote_value
from binwatch.numbers import parse_int
from binwatch.safe_csv import unescape_formula
from binwatch.text import count_noun
from trainer.data.split import Split
from trainer.disk import write_atomically, write_csv, write_png
from trainer.errors import DataError
from trainer.prepare.fetch import SkippedBin

MANIFEST = "manifest.csv"
AUDIT = "audit"
"""Label source of a photo whose label is a person's count."""
MAX_COPIES_SHOWN = 5
"""Maximum number of copies that the report names. copies.csv contains all of them."""
COLUMNS = ("key", "label", "bin_group", "split", "sha256", "label_source", "challenge_split")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the manifest."""

    key: str
    label: int
    label_source: str
    """metadata (the inventory's expected quantity) or audit (a person's count)."""
    group: str
    split: Split
    sha256: str
    challenge_split: Split | None = None


@dataclass(frozen=True)
class Report:
    """The content of a folder after `prepare`."""

    source: str
    size: int
    entries: list[Entry]
    left_out: list[SkippedBin]
    not_found: Mapping[str, int]
    """Class → number of requested photos that were not found."""
    audits_left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason → number of audits that are not labels."""

    def photos(self, label: int, split: Split) -> int:
        """Return the number of photos of class `label` in a split."""
        return sum(1 for each in self.entries if class_of(each.label) == label and each.split is split)


def group_copies(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Group the entries of byte-identical photos: one list for each photo that has several keys."""
    entries_of_hash: dict[str, list[Entry]] = {}
    for entry in entries:
        entries_of_hash.setdefault(entry.sha256, []).append(entry)
    return [copies for copies in entries_of_hash.values() if len(copies) > 1]


def read_manifest(folder: Path) -> list[Entry]:
    """Read the manifest of an earlier run; empty if there is none."""
    file = folder / MANIFEST
    if not file.exists():
        return []
    try:
        with file.open(encoding="utf-8", newline="") as rows:
            return [_parse_entry(row) for row in csv.DictReader(rows)]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file}: is not a manifest of this release ({error}); delete it or choose another --out"
        ) from error


def write(folder: Path, report: Report) -> None:
    """Write all files, the manifest last, because training reads it."""
    rows = [(label, *(report.photos(index, split) for split in Split)) for index, label in enumerate(CLASSES)]
    write_csv(folder / "histogram.csv", [("label", *Split), *rows])
    _draw_histogram(folder / "histogram.png", rows)
    write_csv(folder / "left-out.csv", [("key", "why"), *((each.key, each.reason) for each in report.left_out)])
    copies = [entry for copies in group_copies(report.entries) for entry in copies]
    copy_rows = [(each.sha256, each.key, each.label, each.group) for each in copies]
    write_csv(folder / "copies.csv", [("sha256", "key", "label", "bin_group"), *copy_rows])
    write_atomically(folder / "report.md", render_report(report).encode())
    has_challenge = any(each.challenge_split for each in report.entries)
    columns = COLUMNS if has_challenge else COLUMNS[:-1]
    entries = (
        (each.key, each.label, each.group, each.split, each.sha256, each.label_source, each.challenge_split or "")
        for each in report.entries
    )
    write_csv(folder / MANIFEST, [columns, *(entry[: len(columns)] for entry in entries)])


def render_report(report: Report) -> str:
    """Render the report as Markdown."""
    entries = report.entries
    groups = Counter(each.group for each in entries)
    audits = [each for each in entries if each.label_source == AUDIT]
    lines = [
        "# Data report",
        "",
        f"- source: {report.source}",
        f"- photos: {len(entries):,}{f', squashed to {report.size}×{report.size}' if report.size else ''}",
        f"- bin groups: {len(groups):,}; the largest has {count_noun(max(groups.values()), 'photo')}",
        f"- labels from audits: {len(audits):,}; the others are expected quantities of the inventory",
        *(f"- audits left out: {count:,}: {reason}" for reason, count in sorted(report.audits_left_out.items())),
        f"- left out: {len(report.left_out):,} (left-out.csv)",
        *(
            f"- not found: {count_noun(missing, 'photo')} of {label} items"
            for label, missing in report.not_found.items()
        ),
        "",
        "| label | train | validation | test |",
        "| --- | --- | --- | --- |",
    ]
    for index, label in enumerate(CLASSES):
        lines.append(f"| {label} | {' | '.join(f'{report.photos(index, split):,}' for split in Split)} |")
    missing_classes = [label for index, label in enumerate(CLASSES) if not report.photos(index, Split.TRAIN)]
    if missing_classes:
        shows = ", ".join(missing_classes)
        warning = f"No training photo shows {shows} items: a model will not be able to predict these."
        lines.insert(2, f"**{warning}**")
        lines.insert(3, "")
    totals = Counter(each.split for each in entries)
    lines.append(f"| all | {' | '.join(f'{totals[split]:,}' for split in Split)} |")
    lines += _render_copies(entries)
    reasons = Counter(each.reason for each in report.left_out)
    if reasons:
        lines += ["", "Most common reasons for leaving a photo out:", ""]
        lines += [f"- {photos:,} × {reason}" for reason, photos in reasons.most_common(5)]
    return "\n".join(lines) + "\n"


def _render_copies(entries: list[Entry]) -> list[str]:
    """Render the lines about byte-identical photos, and about those whose labels are of different classes."""
    groups = group_copies(entries)
    contradictory = [copies for copies in groups if len({class_of(entry.label) for entry in copies}) > 1]
    if not groups:
        return []
    lines = [
        "",
        f"{count_noun(len(groups), 'photo exists', 'photos exist')} more than once, under"
        f" {sum(map(len, groups)):,} keys (copies.csv). Copies are in one bin group, and so in one split.",
    ]
    if contradictory:
        count = f"{len(contradictory):,}"
        lines += ["", f"**{count} of them have contradictory labels, of which at most one can be right.**", ""]
        for copies in contradictory[:MAX_COPIES_SHOWN]:
            lines.append(f"- {', '.join(f'{entry.key}: {entry.label}' for entry in copies[:MAX_COPIES_SHOWN])}")
        lines += ["", "Audit these bins (`--audits`), or take them out of your list."]
    return lines


def _parse_entry(row: dict[str, str]) -> Entry:
    label = parse_int(row["label"])
    if label is None or label < 0:
        raise ValueError(f"label {quote_value(row['label'])} of {quote_value(row['key'])}")
    key, group = unescape_formula(row["key"]), unescape_formula(row["bin_group"])
    return Entry(key, label, row["label_source"], group, Split(row["split"]), row["sha256"])


def _draw_histogram(file: Path, rows: list[tuple[object, ...]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained", dpi=120)
    axes = figure.subplots()
    base = [0] * len(rows)
    names = [str(row[0]) for row in rows]
    for position, split in enumerate(Split, start=1):
        heights = [int(str(row[position])) for row in rows]
        axes.bar(names, heights, bottom=base, label=split.value)
        base = [below + height for below, height in zip(base, heights, strict=True)]
    for position, total in enumerate(base):
        axes.text(position, total, f"{total:,}", ha="center", va="bottom")
    axes.set(xlabel="items", ylabel="photos")
    axes.legend(loc="upper right")  # the default searches for free space, and warns if that takes a second
    write_png(file, figure)
