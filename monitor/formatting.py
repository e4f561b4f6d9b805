"""Formatting of figures and reasons, shared by the pages and the terminal."""

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
from monitor.export import ExportReport

MISSING = "–"
_NARROW = "\N{NARROW NO-BREAK SPACE}"
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MIN_FOR_TENTHS = 1_000  # number from which a tenth of a percent is more than noise

PUBLIC_ADDRESS_WARNING = (
    "listening beyond this machine: anyone who can reach this address can see all photos and figures;"
    " put a reverse proxy with a login in front of it"
)

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
"""Texts of binwatch.errors.Reason and MetadataReason."""


def share(value: float | None, n: int) -> str:
    """Format a share of n as a percentage, with no more digits than n justifies."""
    if value is None:
        return MISSING
    return f"{100 * value:.{1 if n >= _MIN_FOR_TENTHS else 0}f}{_NARROW}%"


def items(value: float | None) -> str:
    """Format a mean error in items."""
    return MISSING if value is None else f"{value:.2f}"


def number(value: int) -> str:
    """Format a whole number with separated thousands."""
    return f"{value:,}".replace(",", _NARROW)


def many(value: int, singular: str, plural: str | None = None) -> str:
    """Format a number with its noun. The plural ends with an s unless given."""
    return f"{number(value)} {pluralize(value, singular, plural)}"


def moment(at: datetime | None) -> str:
    """Format a time to the second."""
    return MISSING if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def minute(at: datetime) -> str:
    """Format a time to the minute."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def hours_of_week(hours: Collection[int]) -> str:
    """Format hours of the week (0: Monday, 00:00 to 01:00) as ranges: "Mon 6–22, Tue 6–22"."""
    ordered = sorted(hours)
    starts = [hour for hour in ordered if hour - 1 not in hours or hour % 24 == 0]
    ends = [hour + 1 for hour in ordered if hour + 1 not in hours or hour % 24 == 23]
    return ", ".join(
        f"{_DAYS[start // 24]} {start % 24}–{end - start // 24 * 24}" for start, end in zip(starts, ends, strict=True)
    )


def ago(at: datetime, now: datetime | None = None) -> str:
    """Format the time since `at` in its largest unit; "just now" also for a time in the future."""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{many(int(seconds // length), unit)} ago"
    return "just now"


def reason(name: str) -> str:
    """Return the text of a reason. A reason of another release is shown as it is."""
    return REASONS.get(name, name.replace("_", " "))


def audit_answer(answer: AuditAnswer, quantity: int | None) -> str:
    """Format an auditor's answer: "4", "at least 4"."""
    text = MISSING if quantity is None else number(quantity)
    return {
        AuditAnswer.COUNT: text,
        AuditAnswer.AT_LEAST: f"at least {text}",
        AuditAnswer.CANNOT_TELL: "cannot be told from the photo",
        AuditAnswer.GO_AND_COUNT: "somebody must go and count",
    }[answer]


def audited(audit: RecordedAudit) -> str:
    """Format the result of an audit: the answer, and its verdicts on the count and the inventory."""
    count = "there is no count to judge" if audit.predicted is None else f"counted {CLASSES[audit.predicted]}"
    expected = "no expected quantity to judge" if audit.expected is None else f"expected {audit.expected}"
    verdicts = [f" ({outcome})" if outcome else "" for outcome in (audit.of_count, audit.of_inventory)]
    if audit.blind and audit.quantity is None:
        return f"Recorded: {audit_answer(audit.answer, None)}, blind; the numbers stay hidden until one is entered"
    answer = audit_answer(audit.answer, audit.quantity) + ("" if audit.quantity is None else " found")
    how = "blind" if audit.blind else "with the numbers in sight"
    return f"Recorded: {answer}, {how}; {count}{verdicts[0]}; {expected}{verdicts[1]}"


def exported(report: ExportReport) -> str:
    """Format the result of an export of audits."""
    rows, prefix = report.rows, f"{report.file}: " if report.file else ""
    parts = [many(rows[RowKind.AUDIT], "audit"), many(rows[RowKind.DRAW], "random draw")]
    for kind, singular, plural in (
        (RowKind.REPEAT, "photo given to a second auditor", "photos given to a second auditor"),
        (RowKind.VARIANCE, "step of a variance", "steps of variances"),
        (RowKind.KNOWN, "known quantity", "known quantities"),
    ):
        parts += [many(rows[kind], singular, plural)] if rows[kind] else []
    return prefix + ", ".join(parts)


def audits_imported(report: ImportReport) -> str:
    """Format the result of an import of audits."""
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
    """Format the result of an import of expected or known quantities."""
    total = f"{many(report.recorded, 'bin')} recorded, {number(report.known)} known from an earlier import"
    return "\n".join([*report.lines(listed=listed), total])
