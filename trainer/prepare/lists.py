"""Files that `prepare` reads: lists of keys, the challenge's validation photos, audits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from binwatch.audit_file import AuditFileRow, RowKind, read_audit_file
from binwatch.errors import quote_value
from binwatch.numbers import parse_int
from binwatch.records.audits import AuditAnswer
from trainer.data import class_lists
from trainer.errors import DataError


class LabelOmission(StrEnum):
    """Why an audit whose answer is a number cannot be the label of the photo in the bucket."""

    SIGHTED = "made with the numbers in sight; --sighted-audits uses these, too"
    CORRECTED = "corrected by a later audit"
    CONTRADICTED = "contradicted by a later audit, made with the numbers in sight"
    REPLACED = "a newer photo has arrived"
    NO_COUNT = "the photo was not counted, so it is not known which photo was audited"


def read_keys(file: Path) -> list[str]:
    """Keys from a JSON of classes (the Udacity capstone's file_list.json) or a text file with one per line."""
    if file.suffix.lower() == class_lists.SUFFIX:
        return list(class_lists.read_class_list(file))
    lines = (line.strip() for line in _text(file).splitlines())
    return list(dict.fromkeys(class_lists.key_of(line) for line in lines if line))


def read_challenge(file: Path) -> frozenset[str]:
    """Keys of the ABID challenge's random_val.txt: one number per line, which it pads with zeros to five digits."""
    found = []
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if line.strip():
            photo = parse_int(line)
            if photo is None or photo < 0:
                raise DataError(f"{file}, line {number}: {quote_value(line.strip())} is not the number of a photo")
            found.append(f"{photo:05}")
    if not found:
        raise DataError(f"{file}: lists no photos")
    return frozenset(found)


@dataclass(frozen=True)
class AuditLabels:
    """Labels from a file of audits, and why other audits are not labels."""

    quantities: dict[str, int]
    """Bin → items."""
    left_out: Counter[str]
    """Reason → audits."""


def read_audits(file: Path, *, sighted: bool = False) -> AuditLabels:
    """Labels from a CSV with the columns `bin` and `quantity`, as people write it, or of `monitor audits export`.

    A bin's label is the last number among its blind audits (or with `sighted` among all its audits), unless the same
    auditor withdrew it with a later answer that is not a number. Raises BinwatchError.
    """
    rows = read_audit_file(file, ("bin", "quantity"), "an audit is a bin and the quantity found in it")
    _check_bucket(file, rows)
    of_bin: dict[str, list[AuditFileRow]] = {}
    for row in rows:
        if row.text("kind") in (None, RowKind.AUDIT):
            of_bin.setdefault(row.bin_id, []).append(row)
    quantities, left_out = dict[str, int](), Counter[str]()
    for name, audits in of_bin.items():
        wanted = audits if sighted else [row for row in audits if row.text("blind") is None or row.flag("blind")]
        left_out[LabelOmission.SIGHTED] += len(audits) - len(wanted)
        if not wanted:
            continue
        last = _last(wanted)
        for row in wanted:
            if row is last:
                why = _unfit(last, _last(audits))
            else:
                why = _no_number(row) if row.line > last.line else LabelOmission.CORRECTED
            if why is not None:
                left_out[why] += 1
            else:
                quantities[name] = last.quantity("quantity")
    return AuditLabels(quantities, +left_out)


def _check_bucket(file: Path, rows: list[AuditFileRow]) -> None:
    buckets = sorted({bucket for row in rows if (bucket := row.text("bucket"))})
    if len(buckets) > 1:
        raise DataError(f"{file}: has bins of several buckets ({', '.join(buckets)}); export one of them with --bucket")


def _last(audits: Sequence[AuditFileRow]) -> AuditFileRow:
    """The last number, or the answer by which its auditor withdrew it; the last answer if there is no number."""
    withdrawn_by = dict[str | None, AuditFileRow]()
    for row in reversed(audits):
        if _no_number(row) is None:
            return withdrawn_by.get(row.text("auditor"), row)
        if row.text("auditor"):
            withdrawn_by.setdefault(row.text("auditor"), row)
    return audits[-1]


def _no_number(row: AuditFileRow) -> str | None:
    """The reason if an answer is not the number of all items; None if it is."""
    answer = row.choice("answer", AuditAnswer) if row.text("answer") else AuditAnswer.COUNT
    return None if answer is AuditAnswer.COUNT else f"the answer is {answer}, which is not a number of all items"


def _unfit(last: AuditFileRow, very_last: AuditFileRow) -> str | None:
    """Why the last audit of a bin cannot be the label of the photo in the bucket; None if it can.

    If a mistyped blind answer was corrected by somebody who had seen the numbers, neither answer is a label.
    """
    if why := _no_number(last):
        return why
    if "key" in last.cells and last.text("key") is None:
        return LabelOmission.NO_COUNT
    if last.text("latest_photo") and not last.flag("latest_photo"):
        return LabelOmission.REPLACED
    compared = ("answer", "quantity", "key", "etag")
    if very_last.text("key") and any(last.text(name) != very_last.text(name) for name in compared):
        return LabelOmission.CONTRADICTED
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not text in UTF-8 ({error})") from error
