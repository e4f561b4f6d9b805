"""`prepare`: choose bins, fetch their photos, and write manifest, histogram and report."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from binwatch.counts import CLASSES, class_of
from binwatch.errors import ObjectsError
from binwatch.image import ImageLimits
from binwatch.settings import Settings
from binwatch.text import count_noun
from trainer.data.read_ahead import read_ahead
from trainer.data.source import PREPARED_FILE
from trainer.data.split import Split, split_of
from trainer.disk import check_room, make_folder, write_whole
from trainer.display import Display
from trainer.errors import ConfigError, DataError, DiskError, PrepareError
from trainer.prepare import lists, outputs
from trainer.prepare.config import PrepareConfig
from trainer.prepare.fetch import BinMetadata, FetchedPhoto, Fetcher, LeftOut, kept_quality
from trainer.prepare.groups import name_groups
from trainer.prepare.outputs import AUDIT, Entry, Report
from trainer.prepare.place import METADATA, PHOTOS, Place, open_place

BYTES_PER_PHOTO = 60_000
"""Mean size of the data set's photos, by which the free space is checked before the download."""


@dataclass(frozen=True)
class PrepareOptions:
    """The table [prepare], and the contents of the files that it names."""

    table: PrepareConfig
    keys: tuple[str, ...] | None = None
    """The bins of a list; None: see `table`."""
    audits: Mapping[str, int] = field(default_factory=dict)
    audits_left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason → number of audits that are not labels."""
    challenge: frozenset[str] | None = None
    limits: ImageLimits = field(default_factory=ImageLimits)
    wait_s: float = 1.0
    """Seconds before the second attempt of a request."""


class Preparation:
    """One run of `prepare`."""

    def __init__(self, place: Place, folder: Path, options: PrepareOptions, display: Display) -> None:
        self._place = place
        self._folder = folder
        self._options = options
        self._table = options.table
        self._display = display
        self._fetcher = Fetcher(place, folder, options.table.size, options.limits, options.wait_s)
        self._bins: dict[str, BinMetadata] = {}
        self._left_out: list[LeftOut] = []
        self._short: dict[str, int] = {}
        self._audits: dict[str, int] = {}

    def run(self) -> Report:
        """Fetch and write everything. Raises PrepareError if the place is not reachable or the disk is full."""
        _open_folder(self._folder, self._table.size)
        old = {entry.key: entry for entry in outputs.read_manifest(self._folder)}
        audited = {entry.key: entry.label for entry in old.values() if entry.label_source == AUDIT}
        self._audits = audited | dict(self._options.audits)
        hashes: dict[str, str] = {}
        try:
            for found in self._fetch_photos(self._known(old), {key: entry.sha256 for key, entry in old.items()}):
                hashes[found.key] = found.sha256
        except (ObjectsError, DiskError, PrepareError) as error:
            here = "nothing was fetched"
            if hashes:
                here = f"{count_noun(len(hashes), 'photo is', 'photos are')} in {self._folder}"
            raise PrepareError(f"{error}; {here}: the same command continues") from error
        return self._write(hashes, {key: entry.group for key, entry in old.items()})

    def _known(self, old: Mapping[str, Entry]) -> Iterator[BinMetadata]:
        """The chosen bins, then those of earlier runs that are not among them."""
        for found in self._chosen():
            self._bins[found.key] = found
            yield found
        seen = self._bins.keys() | {each.key for each in self._left_out}
        rest = [key for key in old if key not in seen]
        for found in self._labelled(rest, len(rest), "metadata of earlier runs") if rest else ():
            self._bins[found.key] = found
            yield found

    def _chosen(self) -> Iterator[BinMetadata]:
        table, keys = self._table, self._options.keys
        photos: Counter[int] = Counter()
        listed = keys if keys is not None else () if table.per_class else self._all()
        total = len(listed)
        _check_room(self._folder, total or len(CLASSES) * table.per_class, table.size)
        for found in self._labelled(listed, total, "metadata") if listed else ():  # no bar of 0/0
            photos[self._class(found)] += 1
            yield found
        target = max(photos.values(), default=0) if table.balance else table.per_class
        if target:
            yield from self._search(photos, target, set(listed))

    def _search(self, photos: Counter[int], target: int, listed: set[str]) -> Iterator[BinMetadata]:
        """More bins, from all over the place, until every class has `target` photos."""
        wanted = [index for index in range(len(CLASSES)) if photos[index] < target]
        rest = islice((key for key in self._all() if key not in listed), self._table.scan)
        keys = list(rest) if wanted else []
        for found in self._labelled(keys, len(keys), "looking for classes", quiet=True):
            index = self._class(found)
            if photos[index] < target:
                photos[index] += 1
                yield found
                wanted = [index for index in wanted if photos[index] < target]
            if not wanted:
                break
        self._short = {CLASSES[index]: target - photos[index] for index in wanted}

    def _labelled(self, keys: Iterable[str], total: int, what: str, *, quiet: bool = False) -> Iterator[BinMetadata]:
        """Bins with a quantity; others are left out (`quiet`: and not reported, because nobody requested them)."""
        found = read_ahead(self._fetcher.bin, keys, self._table.jobs, 4 * self._table.jobs)
        for each in self._display.follow(found, total, what):
            if isinstance(each, BinMetadata) and (each.quantity is not None or each.key in self._audits):
                yield each
            elif not quiet:
                why = each.problem if isinstance(each, BinMetadata) else each.why
                self._left_out.append(LeftOut(each.key, why))

    def _fetch_photos(self, bins: Iterable[BinMetadata], known: Mapping[str, str]) -> Iterator[FetchedPhoto]:
        jobs = self._table.jobs
        for found in read_ahead(lambda each: self._fetcher.photo(each, known.get(each.key, "")), bins, jobs, 4 * jobs):
            if isinstance(found, FetchedPhoto):
                yield found
            else:
                self._left_out.append(found)

    def _all(self) -> list[str]:
        """Every key, in a pseudo-random order that is the same in each run."""
        keys = sorted(set(self._place.keys()), key=lambda key: hashlib.sha256(key.encode()).digest())
        if not keys:
            raise DataError(f"{self._place.name}: holds no {METADATA}/*.json")
        return keys

    def _class(self, found: BinMetadata) -> int:
        return class_of(self._quantity(found))

    def _quantity(self, found: BinMetadata) -> int:
        quantity = self._audits.get(found.key, found.quantity)
        assert quantity is not None  # only such bins are chosen
        return quantity

    def _write(self, hashes: Mapping[str, str], old: Mapping[str, str]) -> Report:
        here = {key: found for key, found in self._bins.items() if key in hashes}
        groups, links = name_groups({key: found.products for key, found in here.items()}, old, hashes)
        self._left_out += [LeftOut(key, why) for key, why in links.items()]
        if not groups:
            first = f"; {self._left_out[0].key}: {self._left_out[0].why}" if self._left_out else ""
            raise DataError(f"{self._place.name}: none of the photos can be used{first}")
        entries = [
            Entry(
                key=key,
                label=self._quantity(here[key]),
                label_source=AUDIT if key in self._audits else "metadata",
                group=group,
                split=split_of(group),
                sha256=hashes[key],
                challenge_split=self._challenge_split(key, group),
            )
            for key, group in sorted(groups.items())
        ]
        report = Report(
            self._place.name, self._table.size, entries, self._left_out, self._short, self._options.audits_left_out
        )
        outputs.write(self._folder, report)
        return report

    def _challenge_split(self, key: str, group: str) -> Split | None:
        """The challenge's validation photos are test photos; validation photos are those of Binwatch's own split."""
        if self._options.challenge is None:
            return None
        if key in self._options.challenge:
            return Split.TEST
        return Split.VALIDATION if split_of(group) is Split.VALIDATION else Split.TRAIN


def opened(table: PrepareConfig, settings: Settings) -> tuple[Place, PrepareOptions]:
    """The place of the photos, and the options with the contents of all files. Raises ConfigError or DataError."""
    audits = lists.read_audits(table.audits, sighted=table.sighted_audits) if table.audits else None
    options = PrepareOptions(
        table,
        keys=tuple(lists.read_keys(table.list)) if table.list else None,
        audits=audits.quantities if audits else {},
        audits_left_out=audits.left_out if audits else {},
        challenge=lists.read_challenge(table.challenge_val) if table.challenge_val else None,
        limits=settings.limits,
    )
    return open_place(table.source, settings, table.endpoint, anonymous=table.unsigned), options


def prepare(place: Place, options: PrepareOptions, folder: Path, display: Display) -> Report:
    """Fetch photos into `folder`, which may have photos of earlier runs."""
    return Preparation(place, folder, options, display).run()


def _open_folder(folder: Path, size: int) -> None:
    source = folder / PREPARED_FILE
    for name in (PHOTOS, METADATA):
        make_folder(folder / name)
    for partial in folder.rglob("*.partial"):
        partial.unlink()
    if source.exists():
        was = json.loads(source.read_text(encoding="utf-8"))["size"]
        if was != size:
            kept = f"squashed to {was}" if was else "stored unchanged"
            raise ConfigError(f"{folder}: has photos {kept}; give the same --size or another --out")
    else:
        write_whole(source, json.dumps({"size": size, "jpeg_quality": kept_quality(size)}).encode())


def _check_room(folder: Path, photos: int, size: int) -> None:
    missing = max(photos - sum(1 for _ in (folder / PHOTOS).iterdir()), 0)
    each = size * size * 0.4 if size else BYTES_PER_PHOTO
    advice = "make room, choose another --out, or keep them smaller with --size 224"
    check_room(folder, missing * each, count_noun(missing, "photo"), advice)
