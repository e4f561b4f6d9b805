"""`prepare` from a bucket or a folder: selection, verification, interruption."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from PIL import Image

from binwatch.audit_file import AUDIT_FILE_COLUMNS, CellError
from binwatch.errors import ObjectsError
from binwatch.image import load_photo
from binwatch.settings import Settings
from testing.services.faulty_s3 import FaultyS3, refuse
from testing.services.proxy import Proxy
from testing.services.s3 import S3
from tests.conftest import UNREACHABLE_URL
from tests.trainer.drawn import run_cli
from trainer.config import DataConfig
from trainer.data.index import read_index
from trainer.data.source import open_source
from trainer.data.split import Split, split_of
from trainer.display import Display
from trainer.errors import ConfigError, DataError, PrepareError
from trainer.prepare import fetch
from trainer.prepare.config import PrepareConfig
from trainer.prepare.groups import assign_groups, merge_overlapping, product_runs
from trainer.prepare.lists import read_audits, read_challenge, read_keys
from trainer.prepare.photo_store import FolderStore, MissingFileError, PhotoStore, open_store
from trainer.prepare.run import PrepareOptions, prepare

QUANTITIES = [1, 1, 1, 1, 2, 2, 3, 4, 5, 0, 6, 9] * 4


def jpeg(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (shade,) * 3).save(file, "JPEG")
    return file.getvalue()


def metadata(quantity: object, *products: str) -> bytes:
    document = {"BIN_FCSKU_DATA": dict.fromkeys(products, "details"), "EXPECTED_QUANTITY": quantity}
    return json.dumps(document).encode()


def key_of(number: int) -> str:
    return f"{number + 1:05}"


def objects() -> dict[str, bytes]:
    """Return 48 bins in the layout of the public bucket; each pair of neighbours shares a product."""
    result = {}
    for number, quantity in enumerate(QUANTITIES):
        result[f"bin-images/{key_of(number)}.jpg"] = jpeg(number)
        result[f"metadata/{key_of(number)}.json"] = metadata(quantity, f"P{number // 2}", f"own{number}")
    return result


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name, data in objects().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def manifest(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def left_out(folder: Path) -> dict[str, str]:
    with (folder / "left-out.csv").open(encoding="utf-8", newline="") as file:
        return {row["key"]: row["why"] for row in csv.DictReader(file)}


def test_bucket_becomes_a_training_folder(s3: S3, tmp_path: Path) -> None:
    for name, data in objects().items():
        s3.put(f"some/where/{name}", data)
    out = tmp_path / "data"
    run_cli("prepare", "--from", f"s3://{s3.bucket}/some/where", "--endpoint", s3.endpoint_url, "--out", out, "--all")
    rows = manifest(out)
    assert [int(row["label"]) for row in rows.values()] == QUANTITIES
    for number, (key, row) in enumerate(rows.items()):
        data = (out / "bin-images" / f"{key}.jpg").read_bytes()
        assert data == jpeg(number)
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert row["bin_group"] == key_of(number // 2 * 2)
        assert row["split"] == split_of(row["bin_group"])
        assert row["label_source"] == "metadata"
    assert json.loads((out / "metadata" / "00007.json").read_bytes())["EXPECTED_QUANTITY"] == 3
    index = read_index(DataConfig(photos=out / "bin-images", index=out / "manifest.csv"))
    assert [row.split for row in index] == [row["split"] for row in rows.values()]
    assert (out / "histogram.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "histogram.csv").read_text(encoding="utf-8").startswith("label,train,validation,test\n0,")
    assert "- photos: 48\n- bin groups: 24; the largest has 2 photos" in (out / "report.md").read_text(encoding="utf-8")
    assert not list(out.rglob("*.partial"))


def test_photos_per_class(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_cli("prepare", "--from", source, "--out", tmp_path / "data", "--per-class", 5)
    photos = Counter(min(int(row["label"]), 6) for row in manifest(tmp_path / "data").values())
    assert photos == {0: 4, 1: 5, 2: 5, 3: 4, 4: 4, 5: 4, 6: 5}
    assert "not found: 1 photo of 0 items" in capsys.readouterr().err


def test_list_is_balanced(source: Path, tmp_path: Path) -> None:
    listed = tmp_path / "file_list.json"
    ones = [f"data/metadata/{key_of(number)}.json" for number in (0, 1, 2)]
    listed.write_text(json.dumps({"1": ones, "2": [f"data/metadata/{key_of(4)}.json"]}), encoding="utf-8")
    run_cli("prepare", "--from", source, "--out", tmp_path / "plain", "--list", listed)
    assert list(manifest(tmp_path / "plain")) == ["00001", "00002", "00003", "00005"]
    run_cli("prepare", "--from", source, "--out", tmp_path / "balanced", "--list", listed, "--balance")
    photos = Counter(min(int(row["label"]), 6) for row in manifest(tmp_path / "balanced").values())
    assert photos == dict.fromkeys(range(7), 3)
    assert {"00001", "00002", "00003", "00005"} <= manifest(tmp_path / "balanced").keys()


def test_output_suggests_the_fit_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It contains the option that `fit` requires if photos were squashed to its input size."""
    for size, option in ((16, ""), (224, " --set data.jpeg_quality=95")):
        out = tmp_path / str(size)
        run_cli("prepare", "--from", source, "--out", out, "--per-class", 1, "--size", size)
        expected = f"python -m trainer fit --photos {out}/bin-images --index {out}/manifest.csv --out RUN{option}"
        assert capsys.readouterr().err.splitlines()[-1] == f"fit with it: {expected}"


def test_photos_are_squashed_to_size(source: Path, tmp_path: Path, cli_error: Callable[..., str]) -> None:
    out = tmp_path / "data"
    run_cli("prepare", "--from", source, "--out", out, "--per-class", 1, "--size", 16)
    photos = [load_photo(file.read_bytes()) for file in (out / "bin-images").iterdir()]
    assert {(photo.width, photo.height) for photo in photos} == {(16, 16)}
    message = cli_error("prepare", "--from", source, "--out", out, "--per-class", 1)
    assert "has photos squashed to 16; give the same --size or another --out" in message


def test_unusable_bins_are_left_out_with_a_reason(source: Path, tmp_path: Path) -> None:
    (source / "bin-images" / "00001.jpg").unlink()
    (source / "bin-images" / "00002.jpg").write_bytes(jpeg(1)[:200])
    (source / "bin-images" / "00003.jpg").write_bytes(b"not an image")
    (source / "metadata" / "00004.json").write_bytes(b"{")
    (source / "metadata" / "00005.json").write_bytes(metadata("five"))
    (source / "metadata" / "00006.json").write_bytes(b"[]")
    listed = tmp_path / "keys.txt"
    listed.write_text("00001\n00002.jpg\nbin-images/00003.jpg\n00004\n00005\n00006\n00007\n00099\n", encoding="utf-8")
    out = tmp_path / "data"
    run_cli("prepare", "--from", source, "--out", out, "--list", listed)
    assert list(manifest(out)) == ["00007"]
    why = left_out(out)
    assert why["00001"] == "bin-images/00001.jpg does not exist"
    assert why["00002"].startswith("the photo cannot be decoded: ")
    assert why["00003"].startswith("the photo cannot be decoded: its first bytes")
    assert why["00004"].startswith("the metadata is not the JSON of a bin")
    assert "EXPECTED_QUANTITY is 'five'" in why["00005"]
    assert why["00006"].startswith("the metadata is not the JSON of a bin")
    assert why["00099"] == "metadata/00099.json does not exist"
    assert [file.name for file in (out / "bin-images").iterdir()] == ["00007.jpg"]


def encoded(shade: int, kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (shade,) * 3).save(file, kind)
    return file.getvalue()


OTHER_NAMES = {
    "bin-images/a.png": encoded(1, "PNG"),
    "bin-images/b.JPG": encoded(2, "JPEG"),
    "bin-images/c.jpeg": encoded(3, "PNG"),  # a PNG with the suffix of a JPEG
    "bin-images/d.webp": encoded(4, "WEBP"),
    "bin-images/e.jpg": encoded(5, "JPEG"),
    "bin-images/f.png": encoded(6, "PNG"),
    "bin-images/f.gif": encoded(6, "GIF"),
    "bin-images/g.v2.jpg": encoded(7, "JPEG"),
    "bin-images/g.txt": b"no photo",
}
OTHER_NAMES |= {
    f"metadata/{key}.{'JSON' if key == 'b' else 'json'}": metadata(number) for number, key in enumerate("abcdefg")
}


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_photo_may_have_any_format_and_a_name_in_capitals(s3: S3, tmp_path: Path, kind: str) -> None:
    for name, data in OTHER_NAMES.items():
        s3.put(f"some/{name}", data)
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(data)
    where = [f"s3://{s3.bucket}/some", "--endpoint", s3.endpoint_url] if kind == "bucket" else [tmp_path / "source"]
    out = tmp_path / "data"
    run_cli("prepare", "--from", *where, "--out", out, "--all")
    assert {key: row["label"] for key, row in manifest(out).items()} == dict(zip("abcde", "01234", strict=True))
    files = {file.name: file.read_bytes() for file in (out / "bin-images").iterdir()}
    assert files == {
        "a.png": OTHER_NAMES["bin-images/a.png"], "b.jpg": OTHER_NAMES["bin-images/b.JPG"],
        "c.png": OTHER_NAMES["bin-images/c.jpeg"], "d.webp": OTHER_NAMES["bin-images/d.webp"],
        "e.jpg": OTHER_NAMES["bin-images/e.jpg"],
    }  # fmt: skip
    why = left_out(out)
    assert "bin-images/f.gif and bin-images/f.png are all of bin f; keep one of them" in why["f"]
    assert "bin-images/g.jpg does not exist" in why["g"]
    config = DataConfig(photos=out / "bin-images", index=out / "manifest.csv")
    assert set(open_source(config.photos).sizes()) == {row.key for row in read_index(config)}
    before = {file.name: file.stat().st_mtime_ns for file in (out / "bin-images").iterdir()}
    run_cli("prepare", "--from", *where, "--out", out, "--all")  # existing photos are not fetched again
    assert {file.name: file.stat().st_mtime_ns for file in (out / "bin-images").iterdir()} == before


def test_photo_in_a_new_format_replaces_the_old_file(source: Path, tmp_path: Path) -> None:
    keys, out = tmp_path / "keys.txt", tmp_path / "data"
    keys.write_text("00001\n", encoding="utf-8")
    run_cli("prepare", "--from", source, "--out", out, "--list", keys)
    (source / "bin-images" / "00001.jpg").unlink()
    (source / "bin-images" / "00001.png").write_bytes(encoded(9, "PNG"))
    (out / "bin-images" / "00001.jpg").write_bytes(b"damaged")
    run_cli("prepare", "--from", source, "--out", out, "--list", keys)
    assert [file.name for file in (out / "bin-images").iterdir()] == ["00001.png"]


def test_list_may_contain_any_suffix_and_keys_with_dots(tmp_path: Path) -> None:
    listed = tmp_path / "keys.txt"
    listed.write_text("a\nb.JPG\nbin-images/c.png\nmetadata/d.JSON\n2026.11.29-cam\n", encoding="utf-8")
    assert read_keys(listed) == ["a", "b", "c", "d", "2026.11.29-cam"]


@pytest.mark.parametrize("products", [None, [], ["a"], "a", 3])
def test_bin_without_products_keeps_its_quantity(source: Path, tmp_path: Path, products: object) -> None:
    document = {"BIN_FCSKU_DATA": products, "EXPECTED_QUANTITY": 2}
    (source / "metadata" / "00001.json").write_text(json.dumps(document), encoding="utf-8")
    keys = tmp_path / "keys.txt"
    keys.write_text("00001\n", encoding="utf-8")
    run_cli("prepare", "--from", source, "--out", tmp_path / "data", "--list", keys)
    assert manifest(tmp_path / "data")["00001"]["label"] == "2"


def test_copies_of_a_photo_are_in_one_split_and_reported(source: Path, tmp_path: Path) -> None:
    """A copy of a training photo is no valid test photo, and two labels of one photo cannot both be right."""
    copies = [key_of(number) for number in range(0, 48, 7)]  # of seven bins, three of which would be in other splits
    assert len({split_of(key) for key in copies}) > 1
    for key in copies:
        (source / "bin-images" / f"{key}.jpg").write_bytes(jpeg(200))
    out = tmp_path / "data"
    run_cli("prepare", "--from", source, "--out", out, "--all")
    rows = manifest(out)
    assert len({rows[key]["sha256"] for key in copies}) == 1
    assert {(rows[key]["bin_group"], rows[key]["split"]) for key in copies} == {("00001", split_of("00001"))}
    neighbours = {key_of(number // 2 * 2) for number in range(0, 48, 7)}  # which share a product with one of them
    assert {rows[key]["bin_group"] for key in neighbours} == {"00001"}
    assert len(rows) == 48
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "1 photo exists more than once, under 7 keys (copies.csv)" in report
    assert "**1 of them have contradictory labels, of which at most one can be right.**" in report
    assert "- 00001: 1, 00008: 4, 00015: 1, 00022: 0, 00029: 2" in report
    with (out / "copies.csv").open(encoding="utf-8", newline="") as file:
        assert [row["key"] for row in csv.DictReader(file)] == copies


def test_copies_in_two_splits_of_an_earlier_release_are_not_both_used(source: Path, tmp_path: Path) -> None:
    out, keys = tmp_path / "data", tmp_path / "keys.txt"
    keys.write_text("00001\n00005\n", encoding="utf-8")
    for key in ("00001", "00005"):
        (source / "bin-images" / f"{key}.jpg").write_bytes(jpeg(200))
    run_cli("prepare", "--from", source, "--out", out, "--list", keys)
    text = (out / "manifest.csv").read_text(encoding="utf-8")
    (out / "manifest.csv").write_text(text.replace("00005,2,00001,", "00005,2,00005,"), encoding="utf-8")
    run_cli("prepare", "--from", source, "--out", out, "--list", keys)
    assert list(manifest(out)) == ["00001"]
    assert left_out(out)["00005"] == "is the same photo as 00001, which is in the bin group 00001"


def test_overlapping_lists_are_merged() -> None:
    assert merge_overlapping([["1", "2"], ["3"], ["4", "5"], ["2", "4"], ["6", "7"]]) == [
        ["1", "2", "4", "5"],
        ["3"],
        ["6", "7"],
    ]


def test_audits_are_labels(source: Path, tmp_path: Path) -> None:
    (source / "metadata" / "00002.json").write_bytes(metadata(None))
    audits = tmp_path / "audits.csv"
    audits.write_text("bin,quantity,auditor\n00001,4,Ann\n00002,3,Ann\n00001,5,Bob\n", encoding="utf-8")
    run_cli("prepare", "--from", source, "--out", tmp_path / "data", "--all", "--audits", audits)
    rows = manifest(tmp_path / "data")
    assert [(rows[key]["label"], rows[key]["label_source"]) for key in ("00001", "00002", "00003")] == [
        ("5", "audit"), ("3", "audit"), ("1", "metadata"),
    ]  # fmt: skip


def test_only_blind_audits_with_a_number_are_labels(source: Path, tmp_path: Path) -> None:
    """tests/monitor/test_export.py tests this with the monitor's own export."""
    audits, audited_at, out = tmp_path / "audits.csv", "2026-11-20T08:15:00+00:00", tmp_path / "data"
    audited = [("1", "count", 5, 1), ("2", "count", 5, 0), ("3", "at_least", 5, 1), ("4", "cannot_tell", "", 1)]
    rows = [
        f"audit,b,0000{bin_},{a},{n},,,,{blind},{audited_at},k/{bin_}.jpg,e,1,m,3," for bin_, a, n, blind in audited
    ]
    draw = f"draw,b,00005,,,,,,,{audited_at},k/5.jpg,e,1,m,3,0.5"
    audits.write_text("\n".join([",".join(AUDIT_FILE_COLUMNS), *rows, draw, ""]), encoding="utf-8")
    run_cli("prepare", "--from", source, "--out", out, "--all", "--audits", audits)
    rows_of = manifest(out)
    assert {key for key, row in rows_of.items() if row["label_source"] == "audit"} == {"00001"}
    report = (out / "report.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in report if line.startswith("- audits left out")] == [
        "- audits left out: 1: made with the numbers in sight; --sighted-audits uses these, too",
        "- audits left out: 1: the answer is at_least, which is not a number of all items",
        "- audits left out: 1: the answer is cannot_tell, which is not a number of all items",
    ]
    run_cli("prepare", "--from", source, "--out", out, "--all", "--audits", audits, "--sighted-audits")
    assert {key for key, row in manifest(out).items() if row["label_source"] == "audit"} == {"00001", "00002"}
    audits.write_text("bucket,bin,quantity\na,00001,4\nb,00001,5\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"audits\.csv: has bins of several buckets \(a, b\); export one of them"):
        run_cli("prepare", "--from", source, "--out", out, "--all", "--audits", audits)


def test_audit_labels_are_kept_until_newer_audits(source: Path, tmp_path: Path) -> None:
    """A later run without the audit file must not replace audited labels by quantities of the inventory."""
    (source / "metadata" / "00002.json").write_bytes(metadata(None))
    keys, audits = tmp_path / "keys.txt", tmp_path / "audits.csv"
    keys.write_text("00001\n00002\n", encoding="utf-8")
    audits.write_text("bin,quantity\n00001,5\n00002,3\n", encoding="utf-8")
    run_cli("prepare", "--from", source, "--out", tmp_path / "data", "--list", keys, "--audits", audits)
    keys.write_text("00003\n", encoding="utf-8")
    run_cli("prepare", "--from", source, "--out", tmp_path / "data", "--list", keys)
    rows = manifest(tmp_path / "data")
    assert {key: (row["label"], row["label_source"]) for key, row in rows.items()} == {
        "00001": ("5", "audit"), "00002": ("3", "audit"), "00003": ("1", "metadata"),
    }  # fmt: skip
    audits.write_text('bin,quantity,remark\n00001,4,"moved\nonce"\n00003,x,\n', encoding="utf-8")
    with pytest.raises(CellError, match=r"audits\.csv, line 4, column quantity: 'x' is not a whole number"):
        run_cli("prepare", "--from", source, "--out", tmp_path / "data", "--list", keys, "--audits", audits)
    audits.write_text("bin,quantity\n00001,4\n", encoding="utf-8")
    run_cli("prepare", "--from", source, "--out", tmp_path / "data", "--list", keys, "--audits", audits)
    assert manifest(tmp_path / "data")["00001"]["label"] == "4"


def test_deleted_metadata_is_fetched_again_or_the_bin_left_out(source: Path, tmp_path: Path) -> None:
    keys, out = tmp_path / "keys.txt", tmp_path / "data"
    keys.write_text("00001\n00002\n00003\n", encoding="utf-8")
    run_cli("prepare", "--from", source, "--out", out, "--list", keys)
    for key in ("00001", "00002"):
        (out / "metadata" / f"{key}.json").unlink()
    (source / "metadata" / "00002.json").unlink()
    keys.write_text("00004\n", encoding="utf-8")
    run_cli("prepare", "--from", source, "--out", out, "--list", keys)
    assert list(manifest(out)) == ["00001", "00003", "00004"]
    assert left_out(out) == {"00002": "metadata/00002.json does not exist"}


def test_challenge_has_its_own_split(source: Path, tmp_path: Path) -> None:
    listed = tmp_path / "random_val.txt"
    listed.write_text("1\n17\n", encoding="utf-8")
    out = tmp_path / "data"
    run_cli("prepare", "--from", source, "--out", out, "--all", "--challenge-val", listed)
    rows = manifest(out)
    assert [key for key, row in rows.items() if row["challenge_split"] == "test"] == ["00001", "00017"]
    config = DataConfig(photos=out / "bin-images", index=out / "manifest.csv", split_column="challenge_split")
    assert [row.key for row in read_index(config) if row.split is Split.TEST] == ["00001", "00017"]


def test_splits_do_not_change_when_photos_are_added(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    run_cli("prepare", "--from", source, "--out", out, "--per-class", 2)
    before = manifest(out)
    run_cli("prepare", "--from", source, "--out", out, "--all")
    after = manifest(out)
    assert len(after) > len(before)
    assert {key: after[key] for key in before} == before
    run_cli("prepare", "--from", source, "--out", out, "--per-class", 1)  # existing photos stay
    assert manifest(out) == after


def test_neighbours_that_share_a_product_are_in_one_group() -> None:
    products = {"9": "a", "10": "ab", "11": "b", "12": "c", "00012": "c", "00013": "c", "x": "c"}
    sets = {key: frozenset(names) for key, names in products.items()}
    assert product_runs(sets) == [["9", "10", "11"], ["12"], ["00012", "00013"], ["x"]]


def test_photo_that_links_two_old_groups_is_left_out() -> None:
    products = {key: frozenset("p") for key in ("1", "2", "3", "4")}
    groups, links = assign_groups(products, {"1": "1", "3": "3"})
    assert groups == {"1": "1", "3": "3"}
    assert set(links) == {"2", "4"}
    assert assign_groups(products, {"3": "3"}) == (dict.fromkeys(products, "3"), {})


class FlakyStore:
    """A store that fails at the first `failures` reads of each photo, and permanently after `max_photos` photos."""

    name = "unsteady"

    def __init__(self, folder: Path, failures: int = 0, max_photos: int = 1000) -> None:
        self._folder = FolderStore(folder)
        self._failures, self._whole = failures, max_photos
        self.asked: Counter[str] = Counter()

    def keys(self) -> Iterator[str]:
        return self._folder.keys()

    def metadata(self, key: str) -> bytes:
        return self._folder.metadata(key)

    def photo(self, key: str) -> bytes:
        self.asked[key] += 1
        if len(self.asked) > self._whole or self.asked[key] <= self._failures:
            raise ObjectsError("the network is away")
        return self._folder.photo(key)


def options(**changes: object) -> PrepareOptions:
    return PrepareOptions(
        PrepareConfig.model_validate({"all": "per_class" not in changes, "jobs": 2, **changes}), wait_s=0.001
    )


def test_requests_are_retried_during_an_outage(source: Path, tmp_path: Path) -> None:
    report = prepare(FlakyStore(source, failures=fetch.MAX_ATTEMPTS - 1), options(), tmp_path / "data", Display())
    assert len(report.entries) == 48


def test_interrupted_run_continues(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    with pytest.raises(PrepareError, match=r"the network is away; 20 photos are in .*data: the same command continues"):
        prepare(FlakyStore(source, max_photos=20), options(jobs=1), out, Display())
    assert not (out / "manifest.csv").exists()
    present = {file.name for file in (out / "bin-images").iterdir()}
    assert len(present) == 20
    (out / "bin-images" / "half.jpg.partial").write_bytes(b"half")
    damaged = out / "bin-images" / sorted(present)[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    place = FlakyStore(source)
    prepare(place, options(), out, Display())
    assert len(manifest(out)) == 48
    assert len(place.asked) == 48 - 20 + 1
    assert not list(out.rglob("*.partial"))


def test_photo_that_differs_from_the_manifest_is_fetched_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepare(FolderStore(source), options(), out, Display())
    (out / "bin-images" / "00001.jpg").write_bytes(jpeg(200))  # intact, but not the fetched photo
    prepare(FolderStore(source), options(), out, Display())
    assert (out / "bin-images" / "00001.jpg").read_bytes() == jpeg(0)


def test_full_disk_is_an_error(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.disk.os.fsync", full)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "prepared.json").write_text('{"size": 0, "jpeg_quality": 0}', encoding="utf-8")
    full = r"cannot be written \(No space left on device\); make room; nothing was fetched"
    with pytest.raises(PrepareError, match=full):
        prepare(FolderStore(source), options(), tmp_path / "data", Display())
    assert not list((tmp_path / "data" / "bin-images").iterdir())


def test_lack_of_disk_space_is_reported_before_the_download(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1_000_000

    monkeypatch.setattr("trainer.disk.shutil.disk_usage", lambda _: Usage)
    with pytest.raises(PrepareError, match=r"48 photos need about 2\.9 MB and 1\.0 MB are free; make room"):
        prepare(FolderStore(source), options(), tmp_path / "data", Display())
    with pytest.raises(PrepareError, match=r"70,000 photos need about 4\.2 GB and 1\.0 MB are free; make room"):
        prepare(FolderStore(source), options(per_class=10_000), tmp_path / "data", Display())


@pytest.mark.parametrize("selection", [["--per-class", 7], ["--list", "KEYS", "--balance"]])
def test_disk_that_fills_up_during_the_download(
    source: Path, small_disk: Path, tmp_path: Path, cli_error: Callable[..., str], selection: list[object]
) -> None:
    """The number of photos, or their size, is unknown at the start."""
    keys = tmp_path / "keys.txt"
    keys.write_text("\n".join(key_of(number) for number in range(4)), encoding="utf-8")  # all of one item
    chosen = [keys if each == "KEYS" else each for each in selection]
    flags = ["prepare", "--from", source, *chosen, "--size", 16, "--jobs", 4, "--out"]
    run_cli(*flags, tmp_path / "whole")
    (small_disk / "others").write_bytes(bytes(140_000))
    out = small_disk / "data"
    message = cli_error(*flags, out)
    # Which file exceeds the disk depends on the threads: it may be one of the first.
    full = r"\.(jpg|json): cannot be written \(No space left on device\); make room; "
    so_far = r"(\d+ photos? (are|is) in .*/data|nothing was fetched): the same"
    assert re.search(full + so_far, message)
    assert not (out / "manifest.csv").exists()
    assert not list(out.rglob("*.partial"))
    present = sorted(path.name for path in (out / "bin-images").iterdir())
    assert present
    for name in present:
        assert (out / "bin-images" / name).read_bytes() == (tmp_path / "whole" / "bin-images" / name).read_bytes()

    shutil.copytree(out, tmp_path / "larger")
    run_cli(*flags, tmp_path / "larger")
    assert manifest(tmp_path / "larger") == manifest(tmp_path / "whole")


class VanishingStore:
    """A store whose bucket becomes unreachable after `photos` photos."""

    def __init__(self, place: PhotoStore, proxy: Proxy, photos: int) -> None:
        self._place = place
        self._proxy = proxy
        self._left = photos
        self.name = place.name
        self.keys, self.metadata = place.keys, place.metadata

    def photo(self, key: str) -> bytes:
        self._left -= 1
        if self._left == 0:
            self._proxy.refuse()
        return self._place.photo(key)


def test_outage_of_the_bucket_ends_the_run_which_then_continues(
    s3: S3, s3_proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name, data in objects().items():
        s3.put(name, data)
    endpoint = f"http://127.0.0.1:{s3_proxy.port}"
    place = open_store(f"s3://{s3.bucket}", Settings(), endpoint)
    out = tmp_path / "data"
    with pytest.raises(PrepareError, match=r"Could not connect.*check the endpoint.* photos are in .*data: the same"):
        prepare(VanishingStore(place, s3_proxy, 20), options(), out, Display())
    present = {path.stem for path in (out / "bin-images").iterdir()}
    assert 0 < len(present) < 48
    s3_proxy.serve()
    run_cli("prepare", "--from", f"s3://{s3.bucket}", "--endpoint", endpoint, "--out", out, "--all")
    assert len(manifest(out)) == 48
    for key, number in zip(manifest(out), range(48), strict=True):
        assert (out / "bin-images" / f"{key}.jpg").read_bytes() == jpeg(number)


def test_unreachable_bucket_is_an_error(tmp_path: Path, cli_error: Callable[..., str]) -> None:
    message = cli_error(
        "prepare", "--from", "s3://bins", "--endpoint", UNREACHABLE_URL, "--out", tmp_path / "data", "--all"
    )
    assert 'Could not connect to the endpoint URL: "http://127.0.0.1:9/bins' in message
    assert (
        "check the endpoint, the credentials and the network; nothing was fetched: the same command continues"
        in message
    )


@pytest.fixture
def faulty(faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    return faulty_s3


def serve(data: bytes, etag: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in (
            ("Content-Length", str(len(data))), ("ETag", f'"{etag}"'),
            ("Last-Modified", "Fri, 20 Nov 2026 08:00:00 GMT"),
        ):  # fmt: skip
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def test_photo_is_verified_by_its_etag(faulty: FaultyS3) -> None:
    place = open_store("s3://photos", Settings(), faulty.endpoint_url, anonymous=True)
    data = jpeg(7)
    right = hashlib.md5(data, usedforsecurity=False).hexdigest()
    answers = iter([serve(data[:-1] + b"x", right), serve(data, right)])
    faulty.answer = lambda handler: next(answers)(handler)
    assert place.photo("00001") == data  # the first download is damaged
    faulty.answer = serve(data, "0" * 32)
    assert place.photo("00001") == data  # two equal downloads: an ETag that is not an MD5, as with KMS
    faulty.answer = serve(data, "0" * 32 + "-2")
    faulty.requests = 0
    assert place.photo("00001") == data
    assert faulty.requests == 1  # multipart upload: not an MD5


def test_missing_objects_and_missing_bucket(faulty: FaultyS3) -> None:
    place = open_store("s3://photos", Settings(), faulty.endpoint_url)
    for status, code in ((404, "NoSuchKey"), (403, "AccessDenied")):
        faulty.answer = refuse(status, code)
        with pytest.raises(MissingFileError):
            place.metadata("00001")
    faulty.answer = refuse(404, "NoSuchBucket")
    with pytest.raises(ObjectsError, match="does not exist"):
        place.metadata("00001")


def test_requests_to_the_public_bucket_are_anonymous(faulty: FaultyS3) -> None:
    headers: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        headers.append(handler.headers.get("Authorization"))
        serve(jpeg(1), "0" * 32 + "-1")(handler)

    faulty.answer = answer
    open_store("s3://aft-vbi-pds", Settings(), faulty.endpoint_url).photo("00001")
    open_store("s3://own", Settings(), faulty.endpoint_url).photo("00001")
    assert headers[0] is None
    assert headers[1] is not None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--from", "SOURCE"], "choose one of list, per_class and all (--list FILE, --per-class N, --all)"),
        (
            ["--from", "SOURCE", "--all", "--per-class", "3"],
            "choose one of list, per_class and all (--list FILE, --per-class N, --all)",
        ),
        (["--from", "SOURCE", "--all", "--balance"], "balance needs list"),
        (["--from", "nowhere", "--all"], "nowhere: has no folder metadata/ beside bin-images/"),
        (["--from", "s3:///x", "--all"], "has no bucket"),
        (["--from", "SOURCE", "--list", "none.json"], "none.json: cannot be read (No such file or directory)"),
        (["--from", "SOURCE", "--list", "BAD"], 'is not a list like {"1": ["data/metadata/100313.json"'),
        (["--from", "SOURCE", "--all", "--audits", "BAD"], "no column 'bin'; an audit is a bin and the quantity"),
        (["--from", "SOURCE", "--all", "--challenge-val", "BAD"], "line 1: '[1]' is not the number of a photo"),
    ],
)
def test_wrong_options_are_reported_before_any_work(
    source: Path, tmp_path: Path, cli_error: Callable[..., str], flags: list[str], message: str
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("[1]", encoding="utf-8")
    places = {"SOURCE": str(source), "BAD": str(bad)}
    assert message in cli_error("prepare", "--out", tmp_path / "data", *(places.get(flag, flag) for flag in flags))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_accents_may_be_in_nfc_or_nfd(where: str, source: Path, s3: S3, tmp_path: Path) -> None:
    """Of the photo from macOS (NFD), of its metadata (NFC), of the list, and of the audits."""
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    (source / "bin-images" / f"{nfd}.jpg").write_bytes(jpeg(90))
    (source / "metadata" / f"{nfc}.json").write_bytes(metadata(2, "Pc"))
    (source / "bin-images" / "00001.jpg").rename(source / "bin-images" / "00001.jfif")
    if where == "bucket":
        for path in source.rglob("*.*"):
            s3.put(path.relative_to(source).as_posix(), path.read_bytes())
    place = ["--from", f"s3://{s3.bucket}", "--endpoint", s3.endpoint_url] if where == "bucket" else ["--from", source]
    (tmp_path / "list.txt").write_text(f"{nfd}\n00001\n", encoding="utf-8")
    (tmp_path / "audits.csv").write_text(f"bin,quantity\n{nfd},4\n", encoding="utf-8")
    out = tmp_path / "data"
    run_cli("prepare", *place, "--out", out, "--list", tmp_path / "list.txt", "--audits", tmp_path / "audits.csv")
    assert {key: row["label"] for key, row in manifest(out).items()} == {"00001": "1", nfc: "4"}
    assert set(open_source(out / "bin-images").sizes()) == {"00001", nfc}


def test_name_that_is_not_utf8_is_an_error(source: Path, tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(source) + b"/metadata/caf\xe9.json")).write_bytes(metadata(2))
    with pytest.raises(ConfigError, match=r"caf\\udce9\.json': the name is not UTF-8"):
        prepare(FolderStore(source), options(), tmp_path / "data", Display())


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_photos_and_metadata_are_paired_as_by_workers(
    where: str, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos are paired by folder and by a list; a bin with two photos is reported."""
    files = {
        "bin-images/A-1/IMG_7.jpg": jpeg(1),
        "bin-images/A-2/IMG_7.jpg": jpeg(2),
        "bin-images/A-2/IMG_8.jpg": jpeg(3),
        "bin-images/scan.jpg": jpeg(4),
        "metadata/A-1/stock.json": metadata(3, "P1"),
        "metadata/A-2/stock.json": metadata(4, "P2"),
        "metadata/A-3/stock.json": metadata(5, "P3"),
    }
    for name, data in files.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        s3.put(name, data)
    (tmp_path / "bins.csv").write_text("photo,bin\nscan.jpg,A-3\n", encoding="utf-8")
    monkeypatch.setenv("BINWATCH_BIN_PATTERN", "(?P<bin>[^/]+)/[^/]+$")
    monkeypatch.setenv("BINWATCH_BIN_LIST", str(tmp_path / "bins.csv"))
    out = tmp_path / "data"
    bucket = [f"s3://{s3.bucket}", "--endpoint", s3.endpoint_url]
    run_cli("prepare", "--from", *([tmp_path / "source"] if where == "folder" else bucket), "--out", out, "--all")
    assert {key: row["label"] for key, row in manifest(out).items()} == {"A-1": "3", "A-3": "5"}
    assert left_out(out) == {
        "A-2": "bin-images/A-2/IMG_7.jpg and bin-images/A-2/IMG_8.jpg are all of bin A-2; keep one of them"
    }
    assert (out / "bin-images" / "A-3.jpg").read_bytes() == jpeg(4)


@pytest.mark.parametrize("quantity", ["1_0", "\u0663", "-1", "1000001", "2.0", ""])
def test_audited_quantity_must_be_in_digits(tmp_path: Path, quantity: str) -> None:
    audits = tmp_path / "audits.csv"
    audits.write_text(f"bin,quantity\na,{quantity}\n", encoding="utf-8")
    with pytest.raises(CellError, match=r"audits\.csv, line 2, column quantity: .* is not a whole number of 0 to"):
        read_audits(audits)


def test_challenge_file_must_contain_plain_numbers(tmp_path: Path) -> None:
    listed = tmp_path / "random_val.txt"
    listed.write_text("7\n1_0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"random_val\.txt, line 2: '1_0' is not the number of a photo"):
        read_challenge(listed)
    listed.write_text("7\n10\n", encoding="utf-8")
    assert read_challenge(listed) == {"00007", "00010"}
