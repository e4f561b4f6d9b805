"""Audits as labels for training: the CSV that `python -m trainer prepare --audits` takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial as partial_of
from itertools import groupby
from pathlib import Path

from sqlalchemy import Connection, RowMapping, select

from binwatch.console import printable_stdout
from binwatch.errors import BinwatchError
from binwatch.records.audits import AuditAnswer
from binwatch.records.tables import Audit, Bin, Count
from binwatch.safe_csv import SafeCsvWriter
from monitor.records import Records

COLUMNS = ("bin", "quantity", "auditor", "audited_at", "key", "etag", "blind")
"""The trainer reads the first two; the others say where they come from."""
_AT_A_TIME = 5_000


class OmissionReason(StrEnum):
    """Why an audit is no label of the photo that is in the bucket now. The set is closed."""

    SIGHTED = "made with the numbers in sight; --sighted exports these, too"
    CORRECTED = "corrected by a later audit"
    NO_NUMBER = "the answer is not a number of all items"
    CONTRADICTED = "a later audit, made with the numbers in sight, says otherwise"
    REPLACED = "a newer photo has arrived"
    NO_COUNT = "the photo was not counted, so nothing says which one it was"
    ODD_NAME = "the bin's id does not fit into a line of text"


@dataclass(slots=True)
class Exported:
    """What became of the audits."""

    file: Path | None
    """None: standard output."""
    bins: int = 0
    left_out: Counter[OmissionReason] = field(default_factory=Counter)


def export_audits(records: Records, bucket: str, file: Path | None, *, sighted: bool = False) -> Exported:
    """Write the last audit of each bin, if it is of the photo that the bin has now. Raises BinwatchError.

    Blind audits, unless those with the numbers in sight are asked for, too (`sighted`). Without a file, to standard
    output.
    """
    done = Exported(file)
    if file is None:
        _write(SafeCsvWriter(printable_stdout(), line_end="\n"), _labels(records, bucket, done, sighted=sighted), done)
        return done
    partial = file.with_name(file.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as opened:
            _write(SafeCsvWriter(opened), _labels(records, bucket, done, sighted=sighted), done)
        partial.replace(file)
    except OSError as error:
        raise BinwatchError(f"{file}: cannot be written ({error.strerror}); name another file") from error
    finally:
        partial.unlink(missing_ok=True)
    return done


def _write(writer: SafeCsvWriter, labels: Iterator[tuple[object, ...]], done: Exported) -> None:
    writer.writerow(COLUMNS)
    for row in labels:
        writer.writerow(row)
        done.bins += 1


def _labels(records: Records, bucket: str, done: Exported, *, sighted: bool) -> Iterator[tuple[object, ...]]:
    for bin_id, found in groupby(_audits(records, bucket), lambda row: row["bin_id"]):
        audits = list(found)
        wanted = [audit for audit in audits if audit["blind"] or sighted]
        done.left_out[OmissionReason.SIGHTED] += len(audits) - len(wanted)
        if not wanted:
            continue
        *earlier, last = wanted
        done.left_out[OmissionReason.CORRECTED] += len(earlier)
        why = _unfit(bin_id, last) or _contradicted(last, audits[-1])
        if why is None:
            at = last["audited_at"].isoformat()
            yield bin_id, last["quantity"], last["auditor"] or "", at, last["key"], last["etag"], int(last["blind"])
        else:
            done.left_out[why] += 1


def _contradicted(last: RowMapping, very_last: RowMapping) -> OmissionReason | None:
    """A blind answer that was mistyped is corrected by somebody who has seen the numbers: neither is a label."""
    names = ("answer", "quantity", "key", "etag")
    same = all(last[name] == very_last[name] for name in names)
    return None if same or very_last["key"] is None else OmissionReason.CONTRADICTED


def _unfit(bin_id: str, last: RowMapping) -> OmissionReason | None:
    # The trainer reads lines, and drops the space around a name.
    if not bin_id.isprintable() or bin_id != bin_id.strip():
        return OmissionReason.ODD_NAME
    if last["answer"] != AuditAnswer.COUNT:
        return OmissionReason.NO_NUMBER
    if last["key"] is None:
        return OmissionReason.NO_COUNT
    return None if (last["key"], last["etag"]) == (last["key_now"], last["etag_now"]) else OmissionReason.REPLACED


def _audits(records: Records, bucket: str) -> Iterator[RowMapping]:
    """Audits of a bucket by bin, those of a bin in the order in which they were entered; a chunk at a time."""
    after = ("", 0)
    while rows := records.read(partial_of(_chunk, bucket=bucket, after=after)):
        yield from rows
        after = (rows[-1]["bin_id"], rows[-1]["id"])


def _chunk(connection: Connection, bucket: str, after: tuple[str, int]) -> list[RowMapping]:
    seen, now = Count.__table__.alias("seen"), Count.__table__.alias("now")
    statement = (
        select(
            Audit.__table__, seen.c.key, seen.c.etag, now.c.key.label("key_now"), now.c.etag.label("etag_now"),
        )
        .select_from(Audit)
        .outerjoin(seen, seen.c.id == Audit.count_id)
        .outerjoin(Bin, (Bin.bucket == Audit.bucket) & (Bin.bin_id == Audit.bin_id))
        .outerjoin(now, now.c.id == Bin.count_id)
        .where(Audit.bucket == bucket, (Audit.bin_id > after[0]) | ((Audit.bin_id == after[0]) & (Audit.id > after[1])))
        .order_by(Audit.bin_id, Audit.id)
        .limit(_AT_A_TIME)
    )  # fmt: skip
    return list(connection.execute(statement).mappings().all())
