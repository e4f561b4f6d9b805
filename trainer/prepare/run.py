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
from trainer.disk import check_free_space, make_folder, write_atomically
from trainer.display import Display
from trainer.errors import ConfigError, DataError, DiskError, PrepareError
from trainer.prepare import lists, outputs
from trainer.prepare.config import PrepareConfig
from trainer.prepare.fetch import BinMetadata, FetchedPhoto, Fetcher, SkippedBin, stored_jpeg_quality
from trainer.prepare.groups import assign_groups
from trainer.prepare.outputs import AUDIT, Entry, Report
from trainer.prepare.photo_store import METADATA, PHOTOS, PhotoStore, open_store

BYTES_PER_PHOTO = 60_000
"""Mean size of the public data set's photos, used to estimate the disk space that a download needs."""


@dataclass(frozen=True)
class PrepareOptions:
    """The table [prepare], and the contents of the files that it names."""

    table: PrepareConfig
    keys: tuple[str, ...] | None = None
    """The keys in `table.list`; None if there is no list."""
    audits: Mapping[str, int] = field(default_factory=dict)
    """Bin → number of items that an audit found."""
    audits_left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason → number of audits that are not labels."""
    challenge: frozenset[str] | None = None
    """Keys of the ABID challenge's validation photos."""
    limits: ImageLimits = field(default_factory=ImageLimits)
    wait_s: float = 1.0
    """Seconds before the second attempt of a request."""


class Preparation:
    """One run of `prepare`."""

    def __init__(self, store: PhotoStore, folder: Path, options: PrepareOptions, display: Display) -> None:
        self._store = store
        self._folder = folder
        self._options = options
        self._table = options.table
        self._display = display
        self._fetcher = Fetcher(store, folder, options.table.size, options.limits, options.wait_s)
        self._bins: dict[str, BinMetadata] = {}
        self._left_out: list[SkippedBin] = []
        self._not_found: dict[str, int] = {}
        self._audits: dict[str, int] = {}

    def run(self) -> Report:
        """Fetch and write everything. Raises PrepareError if the store cannot be reached or the disk is full."""
        _prepare_folder(self._folder, self._table.size)
        old = {entry.key: entry for entry in outputs.read_manifest(self._folder)}
        audited = {entry.key: entry.label for entry in old.values() if entry.label_source == AUDIT}
        self._audits = audited | dict(self._options.audits)
        hashes: dict[str, str] = {}
        try:
            for photo in self._fetch_photos(self._all_bins(old), {key: entry.sha256 for key, entry in old.items()}):
                hashes[photo.key] = photo.sha256
        except (ObjectsError, DiskError, PrepareError) as error:
            progress = "nothing was fetched"
            if hashes:
                progress = f"{count_noun(len(hashes), 'photo is', 'photos are')} in {self._folder}"
            raise PrepareError(f"{error}; {progress}: the same command continues") from error
        return self._write(hashes, {key: entry.group for key, entry in old.items()})

    def _all_bins(self, old: Mapping[str, Entry]) -> Iterator[BinMetadata]:
        """Yield the selected bins, then the other bins of earlier runs, and remember them."""
        for bin_ in self._selected_bins():
            self._bins[bin_.key] = bin_
            yield bin_
        done = self._bins.keys() | {skipped.key for skipped in self._left_out}
        remaining = [key for key in old if key not in done]
        for bin_ in self._labelled_bins(remaining, len(remaining), "metadata of earlier runs") if remaining else ():
            self._bins[bin_.key] = bin_
            yield bin_

    def _selected_bins(self) -> Iterator[BinMetadata]:
        """Yield the bins that the options select."""
        table, keys = self._table, self._options.keys
        photos_of_class: Counter[int] = Counter()
        listed = keys if keys is not None else () if table.per_class else self._shuffled_keys()
        total = len(listed)
        _check_disk_space(self._folder, total or len(CLASSES) * table.per_class, table.size)
        for bin_ in self._labelled_bins(listed, total, "metadata") if listed else ():  # no progress bar of 0/0
            photos_of_class[self._class(bin_)] += 1
            yield bin_
        target = max(photos_of_class.values(), default=0) if table.balance else table.per_class
        if target:
            yield from self._search_classes(photos_of_class, target, set(listed))

    def _search_classes(self, photos_of_class: Counter[int], target: int, listed: set[str]) -> Iterator[BinMetadata]:
        """Yield bins from the whole store until every class has `target` photos."""
        incomplete = [index for index in range(len(CLASSES)) if photos_of_class[index] < target]
        candidates = islice((key for key in self._shuffled_keys() if key not in listed), self._table.scan)
        keys = list(candidates) if incomplete else []
        for bin_ in self._labelled_bins(keys, len(keys), "looking for classes", quiet=True):
            index = self._class(bin_)
            if photos_of_class[index] < target:
                photos_of_class[index] += 1
                yield bin_
                incomplete = [index for index in incomplete if photos_of_class[index] < target]
            if not incomplete:
                break
        self._not_found = {CLASSES[index]: target - photos_of_class[index] for index in incomplete}

    def _labelled_bins(
        self, keys: Iterable[str], total: int, what: str, *, quiet: bool = False
    ) -> Iterator[BinMetadata]:
        """Yield the bins that have a quantity, and report the others as left out.

        With `quiet`, others are not reported, because they were not requested.
        """
        results = read_ahead(self._fetcher.fetch_metadata, keys, self._table.jobs, 4 * self._table.jobs)
        for result in self._display.track(results, total, what):
            if isinstance(result, BinMetadata) and (result.quantity is not None or result.key in self._audits):
                yield result
            elif not quiet:
                reason = result.problem if isinstance(result, BinMetadata) else result.reason
                self._left_out.append(SkippedBin(result.key, reason))

    def _fetch_photos(self, bins: Iterable[BinMetadata], hashes: Mapping[str, str]) -> Iterator[FetchedPhoto]:
        """Fetch the photos of `bins`. `hashes` are SHA-256 of stored photos by key, from the manifest."""

        def fetch(bin_: BinMetadata) -> FetchedPhoto | SkippedBin:
            return self._fetcher.fetch_photo(bin_, hashes.get(bin_.key, ""))

        for result in read_ahead(fetch, bins, self._table.jobs, 4 * self._table.jobs):
            if isinstance(result, FetchedPhoto):
                yield result
            else:
                self._left_out.append(result)

    def _shuffled_keys(self) -> list[str]:
        """Return every key of the store, in a pseudo-random order that is the same in each run."""
        keys = sorted(set(self._store.keys()), key=lambda key: hashlib.sha256(key.encode()).digest())
        if not keys:
            raise DataError(f"{self._store.name}: holds no {METADATA}/*.json")
        return keys

    def _class(self, bin_: BinMetadata) -> int:
        return class_of(self._quantity(bin_))

    def _quantity(self, bin_: BinMetadata) -> int:
        quantity = self._audits.get(bin_.key, bin_.quantity)
        assert quantity is not None  # _labelled_bins yields no others
        return quantity

    def _write(self, hashes: Mapping[str, str], old_groups: Mapping[str, str]) -> Report:
        """Assign groups and splits to the fetched photos, and write the manifest and the report."""
        bins = {key: bin_ for key, bin_ in self._bins.items() if key in hashes}
        groups, left_out = assign_groups({key: bin_.products for key, bin_ in bins.items()}, old_groups, hashes)
        self._left_out += [SkippedBin(key, reason) for key, reason in left_out.items()]
        if not groups:
            first = f"; {self._left_out[0].key}: {self._left_out[0].reason}" if self._left_out else ""
            raise DataError(f"{self._store.name}: none of the photos can be used{first}")
        entries = [
            Entry(
                key=key,
                label=self._quantity(bins[key]),
                label_source=AUDIT if key in self._audits else "metadata",
                group=group,
                split=split_of(group),
                sha256=hashes[key],
                challenge_split=self._challenge_split(key, group),
            )
            for key, group in sorted(groups.items())
        ]
        report = Report(
            self._store.name, self._table.size, entries, self._left_out, self._not_found, self._options.audits_left_out
        )
        outputs.write(self._folder, report)
        return report

    def _challenge_split(self, key: str, group: str) -> Split | None:
        """Return the split for the challenge's protocol.

        The challenge's validation photos are the test photos. Validation photos are those of Binwatch's own split.
        """
        if self._options.challenge is None:
            return None
        if key in self._options.challenge:
            return Split.TEST
        return Split.VALIDATION if split_of(group) is Split.VALIDATION else Split.TRAIN


def open_inputs(table: PrepareConfig, settings: Settings) -> tuple[PhotoStore, PrepareOptions]:
    """Open the photo store, and read all files that `table` names. Raises ConfigError or DataError."""
    audits = lists.read_audits(table.audits, sighted=table.sighted_audits) if table.audits else None
    options = PrepareOptions(
        table,
        keys=tuple(lists.read_keys(table.list)) if table.list else None,
        audits=audits.quantities if audits else {},
        audits_left_out=audits.left_out if audits else {},
        challenge=lists.read_challenge(table.challenge_val) if table.challenge_val else None,
        limits=settings.limits,
    )
    return open_store(table.source, settings, table.endpoint, anonymous=table.unsigned), options


def prepare(store: PhotoStore, options: PrepareOptions, folder: Path, display: Display) -> Report:
    """Fetch photos into `folder`, which may have photos of earlier runs."""
    return Preparation(store, folder, options, display).run()


def _prepare_folder(folder: Path, size: int) -> None:
    """Create the folder, or check that an earlier run has stored its photos at the same size."""
    info_file = folder / PREPARED_FILE
    for name in (PHOTOS, METADATA):
        make_folder(folder / name)
    for partial in folder.rglob("*.partial"):
        partial.unlink()
    if info_file.exists():
        stored_size = json.loads(info_file.read_text(encoding="utf-8"))["size"]
        if stored_size != size:
            how = f"squashed to {stored_size}" if stored_size else "stored unchanged"
            raise ConfigError(f"{folder}: has photos {how}; give the same --size or another --out")
    else:
        write_atomically(info_file, json.dumps({"size": size, "jpeg_quality": stored_jpeg_quality(size)}).encode())


def _check_disk_space(folder: Path, photos: int, size: int) -> None:
    missing = max(photos - sum(1 for _ in (folder / PHOTOS).iterdir()), 0)
    bytes_per_photo = size * size * 0.4 if size else BYTES_PER_PHOTO
    advice = "make room, choose another --out, or keep them smaller with --size 224"
    check_free_space(folder, missing * bytes_per_photo, count_noun(missing, "photo"), advice)
