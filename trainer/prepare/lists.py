"""Readers of the files that `prepare` accepts: lists of keys, the challenge's validation photos, audits."""

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
    """Why an audit is not used as the label of the photo in the bucket."""

    SIGHTED = "made with the numbers in sight; --sighted-audits uses these, too"
    CORRECTED = "corrected by a later audit"
    CONTRADICTED = "contradicted by a later audit, made with the numbers in sight"
    REPLACED = "a newer photo has arrived"
    NO_COUNT = "the photo was not counted, so it is not known which photo was audited"


def read_keys(file: Path) -> list[str]:
    """Read keys from a JSON of classes (the Udacity capstone's file_list.json) or a text file with one key per line."""
    if file.suffix.lower() == class_lists.SUFFIX:
        return list(class_lists.read_class_list(file))
    lines = (line.strip() for line in _read_text(file).splitlines())
    return list(dict.fromkeys(class_lists.key_of(line) for line in lines if line))


def read_challenge(file: Path) -> frozenset[str]:
    """Read the keys in the ABID challenge's random_val.txt, which has one number per line.

    A photo's key is its number, padded with zeros to five digits.
    """
    keys = []
    for line_number, line in enumerate(_read_text(file).splitlines(), start=1):
        if line.strip():
            photo = parse_int(line)
            if photo is None or photo < 0:
                raise DataError(f"{file}, line {line_number}: {quote_value(line.strip())} is not the number of a photo")
            keys.append(f"{photo:05}")
    if not keys:
        raise DataError(f"{file}: lists no photos")
    return frozenset(keys)


@dataclass(frozen=True)
class AuditLabels:
    """Labels from a file of audits, and the reasons why other audits are not labels."""

    quantities: dict[str, int]
    """Bin → number of items."""
    left_out: Counter[str]
    """Reason → number of audits that are not labels."""


def read_audits(file: Path, *, sighted: bool = False) -> AuditLabels:
    """Read labels from a CSV with the columns `bin` and `quantity`, written by hand or by `monitor audits export`.

    A bin's label is the last number among its blind audits (or with `sighted`, among all its audits), unless the same
    auditor withdrew it with a later answer that is not a number. Raises BinwatchError.
    """
    rows = read_audit_file(file, ("bin", "quantity"), "an audit is a bin and the quantity found in it")
    _check_bucket(file, rows)
    audits_of_bin: dict[str, list[AuditFileRow]] = {}
    for row in rows:
        if row.text("kind") in (None, RowKind.AUDIT):
            audits_of_bin.setdefault(row.bin_id, []).append(row)
    quantities, left_out = dict[str, int](), Counter[str]()
    for bin_id, audits in audits_of_bin.items():
        eligible = audits if sighted else [row for row in audits if row.text("blind") is None or row.flag("blind")]
        left_out[LabelOmission.SIGHTED] += len(audits) - len(eligible)
        if not eligible:
            continue
        decisive = _decisive_audit(eligible)
        for row in eligible:
            if row is decisive:
                reason = _why_no_label(decisive, _decisive_audit(audits))
            else:
                reason = _why_no_number(row) if row.line > decisive.line else LabelOmission.CORRECTED
            if reason is not None:
                left_out[reason] += 1
            else:
                quantities[bin_id] = decisive.quantity("quantity")
    return AuditLabels(quantities, +left_out)


def _check_bucket(file: Path, rows: list[AuditFileRow]) -> None:
    buckets = sorted({bucket for row in rows if (bucket := row.text("bucket"))})
    if len(buckets) > 1:
        raise DataError(f"{file}: has bins of several buckets ({', '.join(buckets)}); export one of them with --bucket")


def _decisive_audit(audits: Sequence[AuditFileRow]) -> AuditFileRow:
    """Return the audit that decides a bin's label.

    This is the last one that gives a number, or the later answer by which the same auditor withdrew that number. If no
    audit gives a number, it is the last audit.
    """
    withdrawals = dict[str | None, AuditFileRow]()
    for row in reversed(audits):
        if _why_no_number(row) is None:
            return withdrawals.get(row.text("auditor"), row)
        if row.text("auditor"):
            withdrawals.setdefault(row.text("auditor"), row)
    return audits[-1]


def _why_no_number(row: AuditFileRow) -> str | None:
    """Return why an answer gives no exact number; None if it gives one."""
    answer = row.choice("answer", AuditAnswer) if row.text("answer") else AuditAnswer.COUNT
    return None if answer is AuditAnswer.COUNT else f"the answer is {answer}, which is not a number of all items"


def _why_no_label(audit: AuditFileRow, decisive_of_all: AuditFileRow) -> str | None:
    """Return why the decisive audit of a bin cannot label the photo in the bucket; None if it can.

    `decisive_of_all` is the decisive one among all audits of the bin, sighted ones included. If somebody who had seen
    the numbers corrected a mistyped blind answer, neither answer is a label.
    """
    if reason := _why_no_number(audit):
        return reason
    if "key" in audit.cells and audit.text("key") is None:
        return LabelOmission.NO_COUNT
    if audit.text("latest_photo") and not audit.flag("latest_photo"):
        return LabelOmission.REPLACED
    columns = ("answer", "quantity", "key", "etag")
    if decisive_of_all.text("key") and any(audit.text(name) != decisive_of_all.text(name) for name in columns):
        return LabelOmission.CONTRADICTED
    return None


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not text in UTF-8 ({error})") from error
