"""Formatting of figures and reasons, the same on the pages and in the terminal."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from binwatch.audit_file import RowKind
from binwatch.counts import CLASSES
from binwatch.inventory.reading import InventoryReport
from binwatch.records.audits import AuditAnswer, RecordedAudit
from binwatch.records.past_audits import ImportOutcome
from binwatch.text import pluralize
from monitor.audit_import import ImportReport
from monitor.export import Exported

NONE = "–"
_NARROW = "\N{NARROW NO-BREAK SPACE}"
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_FINE = 1_000  # comparisons from which a tenth of a percent is more than noise

OPEN = (
    "listening beyond this machine: anyone who can reach this address can see all photos and figures;"
    " put a reverse proxy with a login in front of it"
)

# binwatch.errors.Reason and MetadataReason.
REASONS = {
    "missing": "not there (any more)",
    "empty": "empty file",
    "too_large": "file too large",
    "too_many_pixels": "too many pixels",
    "not_an_image": "not an image",
    "unsupported_format": "format not supported",
    "truncated": "file ends early",
    "corrupt": "image data damaged",
    "forbidden": "may not be read",
    "archived": "is in an archive",
    "fetch_failed": "could not be fetched",
    "bad_encoding": "has a Content-Encoding that cannot be decoded",
    "inference_failed": "the model failed on it",
    "crashed": "crashed the worker",
    "not_json": "not JSON",
    "no_expected_quantity": "no EXPECTED_QUANTITY",
    "bad_expected_quantity": "EXPECTED_QUANTITY is not a whole number",
}


def share(value: float | None, of: int) -> str:
    """A share as a percentage, with no more digits than `of` comparisons justify."""
    if value is None:
        return NONE
    return f"{100 * value:.{1 if of >= _FINE else 0}f}{_NARROW}%"


def items(value: float | None) -> str:
    """A mean error in items."""
    return NONE if value is None else f"{value:.2f}"


def number(value: int) -> str:
    """A whole number with separated thousands."""
    return f"{value:,}".replace(",", _NARROW)


def many(value: int, one: str, several: str | None = None) -> str:
    """A number and its noun, which ends with an s unless given."""
    return f"{number(value)} {pluralize(value, one, several)}"


def moment(at: datetime | None) -> str:
    """A moment, to the second."""
    return NONE if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def minute(at: datetime) -> str:
    """A moment where there is no room for its seconds."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def hours_of_week(hours: Collection[int]) -> str:
    """Hours of the week, 0 for Monday from 0 to 1 o'clock, as ranges: "Mon 6–22, Tue 6–22"."""
    known = sorted(hours)
    begins = [hour for hour in known if hour - 1 not in hours or hour % 24 == 0]
    ends = [hour + 1 for hour in known if hour + 1 not in hours or hour % 24 == 23]
    return ", ".join(
        f"{_DAYS[begin // 24]} {begin % 24}–{end - begin // 24 * 24}" for begin, end in zip(begins, ends, strict=True)
    )


def ago(at: datetime, now: datetime | None = None) -> str:
    """How long ago a moment was, in its largest unit; "just now" also for a moment in the future."""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    for unit, length in _UNITS:
        if seconds >= length:
            times = int(seconds // length)
            return f"{many(times, unit)} ago"
    return "just now"


def reason(name: str) -> str:
    """What a reason means; a reason of another release is shown as it is."""
    return REASONS.get(name, name.replace("_", " "))


def found(answer: AuditAnswer, quantity: int | None) -> str:
    """What an auditor answered: "4", "at least 4"."""
    said = NONE if quantity is None else number(quantity)
    return {
        AuditAnswer.COUNT: said,
        AuditAnswer.AT_LEAST: f"at least {said}",
        AuditAnswer.CANNOT_TELL: "cannot be told from the photo",
        AuditAnswer.GO_AND_COUNT: "somebody must go and count",
    }[answer]


def audited(audit: RecordedAudit) -> str:
    """The result of an audit: the answer, and what it says of the count and of the inventory."""
    count = "there is no count to judge" if audit.predicted is None else f"counted {CLASSES[audit.predicted]}"
    expected = "no expected quantity to judge" if audit.expected is None else f"expected {audit.expected}"
    verdicts = [f" ({outcome})" if outcome else "" for outcome in (audit.of_count, audit.of_inventory)]
    if audit.blind and audit.quantity is None:
        return f"Recorded: {found(audit.answer, None)}, blind; the numbers stay hidden until one is entered"
    said = found(audit.answer, audit.quantity) + ("" if audit.quantity is None else " found")
    how = "blind" if audit.blind else "with the numbers in sight"
    return f"Recorded: {said}, {how}; {count}{verdicts[0]}; {expected}{verdicts[1]}"


def exported(done: Exported) -> str:
    """What was written to a file of audits."""
    rows, where = done.rows, f"{done.file}: " if done.file else ""
    parts = [many(rows[RowKind.AUDIT], "audit"), many(rows[RowKind.DRAW], "random draw")]
    for kind, one, several in (
        (RowKind.REPEAT, "photo given to a second auditor", "photos given to a second auditor"),
        (RowKind.VARIANCE, "step of a variance", "steps of variances"),
        (RowKind.KNOWN, "known quantity", "known quantities"),
    ):
        parts += [many(rows[kind], one, several)] if rows[kind] else []
    return where + ", ".join(parts)


def audits_imported(report: ImportReport) -> str:
    """What became of the rows of a file of audits."""
    lines = [f"{report.file}: {many(report.outcomes.total(), 'row')}"]
    lines += [
        f"{'not imported' if outcome.is_refused else 'of them'}, {number(rows)}: {outcome}"
        for outcome in ImportOutcome
        if (rows := report.outcomes[outcome])
    ]
    if report.refused_file:
        lines.append(f"the rows that were not imported are in {report.refused_file}, which can be imported later")
    return "\n".join(lines)


def imported(report: InventoryReport, *, listed: bool = True) -> str:
    """What became of an imported file's rows."""
    done = f"{many(report.recorded, 'bin')} recorded, {number(report.known)} known from an earlier import"
    return "\n".join([*report.lines(listed=listed), done])
