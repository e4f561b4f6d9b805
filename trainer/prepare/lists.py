"""Lists that people bring: keys, the challenge's validation photos, audits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from binwatch.audit_file import AuditFileRow, RowKind, read_rows
from binwatch.errors import shown
from binwatch.numbers import whole
from binwatch.records.audits import AuditAnswer
from trainer.data import class_lists
from trainer.errors import DataError


class LabelOmission(StrEnum):
    """Why an audit is no label of the photo that is in the bucket, if its answer is a number."""

    SIGHTED = "made with the numbers in sight; --sighted-audits uses these, too"
    CORRECTED = "corrected by a later audit"
    CONTRADICTED = "a later audit, made with the numbers in sight, says otherwise"
    REPLACED = "a newer photo has arrived"
    NO_COUNT = "the photo was not counted, so nothing says which one it was"


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
            photo = whole(line)
            if photo is None or photo < 0:
                raise DataError(f"{file}, line {number}: {shown(line.strip())} is not the number of a photo")
            found.append(f"{photo:05}")
    if not found:
        raise DataError(f"{file}: lists no photos")
    return frozenset(found)


@dataclass(frozen=True)
class AuditLabels:
    """Labels of a file of audits, and why other audits are none."""

    quantities: dict[str, int]
    """Bin → items."""
    left_out: Counter[str]
    """Reason → audits."""


def read_audits(file: Path, *, sighted: bool = False) -> AuditLabels:
    """Labels from a CSV with the columns `bin` and `quantity`, as people write it, or of `monitor audits export`.

    The last number of a bin counts, of its blind audits, or of all if `sighted`, unless the same person took it back
    with an answer that is no number. Raises BinwatchError.
    """
    rows = read_rows(file, ("bin", "quantity"), "an audit is a bin and the quantity found in it")
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
                quantities[name] = last.items("quantity")
    return AuditLabels(quantities, +left_out)


def _check_bucket(file: Path, rows: list[AuditFileRow]) -> None:
    buckets = sorted({bucket for row in rows if (bucket := row.text("bucket"))})
    if len(buckets) > 1:
        raise DataError(f"{file}: has bins of the buckets {', '.join(buckets)}; export the audits of one with --bucket")


def _last(audits: Sequence[AuditFileRow]) -> AuditFileRow:
    """The last number, or the answer by which its auditor took it back; the last answer if there is no number."""
    took_back = dict[str | None, AuditFileRow]()
    for row in reversed(audits):
        if _no_number(row) is None:
            return took_back.get(row.text("auditor"), row)
        if row.text("auditor"):
            took_back.setdefault(row.text("auditor"), row)
    return audits[-1]


def _no_number(row: AuditFileRow) -> str | None:
    """What is said of an answer that is not a number of all items; None of one that is."""
    answer = row.choice("answer", AuditAnswer) if row.text("answer") else AuditAnswer.COUNT
    return None if answer is AuditAnswer.COUNT else f"the answer is {answer}, which is not a number of all items"


def _unfit(last: AuditFileRow, very_last: AuditFileRow) -> str | None:
    """Why the last audit of a bin is no label of the photo that is in the bucket; None if it is one.

    A blind answer that was mistyped is corrected by somebody who has seen the numbers: neither is a label.
    """
    if why := _no_number(last):
        return why
    if "key" in last.cells and last.text("key") is None:
        return LabelOmission.NO_COUNT
    if last.text("latest_photo") and not last.flag("latest_photo"):
        return LabelOmission.REPLACED
    said = ("answer", "quantity", "key", "etag")
    if very_last.text("key") and any(last.text(name) != very_last.text(name) for name in said):
        return LabelOmission.CONTRADICTED
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not text in UTF-8 ({error})") from error
