"""The main job, as a user runs it: the real model, real photos, real processes, real HTTP."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
import zlib
from collections import Counter
from pathlib import Path

import pytest

from tests.demo.conftest import ROOT, SAMPLES


def test_the_samples_are_all_counted_and_compared(run_demo):
    done = run_demo()
    assert done.status == 0, done.output
    report = done.report
    with (SAMPLES / "index.csv").open() as file:
        labels = {f"bin-images/{row['key']}.jpg": int(row["label"]) for row in csv.DictReader(file)}
    assert report["photos"] == report["counted"] == report["compared"] == len(labels) == 122
    assert report["failed"] == {}
    assert report["unaccounted"] == []
    assert {one["key"]: one["expected"] for one in report["bins"]} == labels
    assert report["model"]["variant"] == "int8"
    assert report["model"]["provider"] == "CPUExecutionProvider"
    assert report["photos_per_second"] > 0


def test_the_reports_sums_follow_from_its_bins(run_demo):
    report = run_demo().report
    errors = [one["predicted"] - min(one["expected"], 6) for one in report["bins"]]
    assert report["agreement"] == pytest.approx(sum(error == 0 for error in errors) / len(errors), abs=1e-4)
    assert report["mae"] == pytest.approx(sum(map(abs, errors)) / len(errors), abs=1e-4)
    assert report["rmse"] == pytest.approx(math.sqrt(sum(e * e for e in errors) / len(errors)), abs=1e-4)
    assert report["within_one"] == pytest.approx(sum(abs(e) <= 1 for e in errors) / len(errors), abs=1e-4)
    for one in report["bins"]:
        assert sum(one["probabilities"]) == pytest.approx(1, abs=1e-4)
        assert one["predicted"] == max(range(7), key=one["probabilities"].__getitem__)
        assert one["outcome"] == {0: "exact", 1: "over", -1: "under"}[_sign(one["predicted"] - min(one["expected"], 6))]


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


def test_a_proxy_that_is_set_for_the_shell_is_not_asked(run_demo):
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    done = run_demo(**dict.fromkeys(proxies, "http://127.0.0.1:9"))
    assert done.status == 0, done.output
    assert done.report["counted"] == 122


def test_bad_input_gets_its_reason_and_the_rest_is_counted(run_demo, tmp_path):
    photos, metadata = tmp_path / "photos", tmp_path / "metadata"
    expected = make_bad_folder(photos, metadata)
    done = run_demo("--photos", str(photos), "--metadata", str(metadata))
    assert done.status == 0, done.output
    found = {one["key"].removeprefix("bin-images/"): (one["reason"], one["expected"]) for one in done.report["bins"]}
    assert found == expected
    assert done.report["failed"] == dict(Counter(reason for reason, _ in expected.values() if reason))
    assert done.report["metadata_failed"] == {"not_json": 1, "no_expected_quantity": 1, "bad_expected_quantity": 1}
    assert done.report["compared"] == 6
    without = {one["key"] for one in done.report["bins"] if one["outcome"] == "no expected quantity"}
    nothing_known = ("no metadata.jpg", "broken.jpg", "lacking.jpg", "minus.jpg")
    assert without == {f"bin-images/{name}" for name in nothing_known}
    for one in done.report["bins"]:
        if one["reason"]:
            assert one["detail"]
            assert one["key"] in done.output


def make_bad_folder(photos: Path, metadata: Path) -> dict[str, tuple[str | None, int | None]]:
    """Good and bad files; returns, by name, the reason that each must get and its expected quantity."""
    good = (SAMPLES / "bin-images" / "00184.jpg").read_bytes()
    odd = ["with space.jpg", "plus+and%.jpg", "50%25.jpg", "grün.jpg", "aisle 7/shelf+b/00184.jpg", "[red]x.JPG"]
    contents = dict.fromkeys([*odd, "no metadata.jpg", "broken.jpg", "lacking.jpg", "minus.jpg"], good)
    contents |= {
        "empty.jpg": b"",
        "text.jpg": b"these are not the bytes of a photo",
        "truncated.jpg": good[: len(good) // 2],
        "huge.png": png_header(20_000, 20_000),
    }
    for name, content in contents.items():
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    quantities = {Path(name).with_suffix(".json"): json.dumps({"EXPECTED_QUANTITY": 5}) for name in odd}
    broken = {"broken.json": "{", "lacking.json": '{"BIN_FCSKU_DATA": {}}', "minus.json": '{"EXPECTED_QUANTITY": -1}'}
    for name, text in {**quantities, **broken}.items():
        path = metadata / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    reasons = {
        "empty.jpg": "empty",
        "text.jpg": "not_an_image",
        "truncated.jpg": "truncated",
        "huge.png": "too_many_pixels",
    }
    return {name: (reasons.get(name), 5 if name in odd else None) for name in contents}


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises much: header, a little data, end."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_a_folder_without_photos_is_an_error_that_names_it(run_demo, tmp_path):
    done = run_demo("--photos", str(tmp_path))
    assert done.status == 1
    assert f"{tmp_path}: no photos here" in done.output.replace("\n", "")
    assert "Traceback" not in done.output


def test_a_misspelt_setting_is_an_error_that_suggests_the_right_one(run_demo):
    done = run_demo(BINWATCH_GROUP_FOTOS="8")
    assert done.status == 1
    assert "BINWATCH_GROUP_FOTOS is not a setting; did you mean BINWATCH_GROUP_PHOTOS?" in done.output
    assert done.report is None


def test_a_bundle_whose_model_is_not_the_cards_stops_the_demo_and_says_why(run_demo, tmp_path):
    bundle = tmp_path / "model"
    shutil.copytree(SAMPLES / "model", bundle)
    model = next(bundle.glob("*.onnx"))
    model.write_bytes(model.read_bytes() + b"\0")
    done = run_demo(BINWATCH_MODEL_DIR=str(bundle))
    assert done.status == 1
    assert "SHA-256" in done.output
    assert str(model) in done.output.replace("\n", "")


def test_a_relative_path_in_a_setting_is_one_from_the_current_folder(run_demo, tmp_path):
    shutil.copytree(SAMPLES / "model-lite", tmp_path / "mine")
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(SAMPLES / "bin-images" / "00184.jpg", photos)
    done = run_demo("--photos", "photos", cwd=tmp_path, BINWATCH_MODEL_DIR="mine")
    assert done.status == 0, done.output
    assert done.report["model"]["version"] == "starter-2"


def _serving(tmp_path: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(SAMPLES / "bin-images" / "00184.jpg", photos)
    given = ["--photos", str(photos), "--metadata", str(SAMPLES / "metadata"), "--serve", *more]
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup, which programs inherit
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "demo", *given],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    finally:
        signal.signal(signal.SIGHUP, previous)


def _ended(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """End it with a signal; returns its further output."""
    process.send_signal(number)
    try:
        return process.communicate(timeout=60)[0]
    finally:
        process.kill()  # does nothing if it has ended


def test_kept_records_stay(tmp_path, run_demo):
    folder = tmp_path / "kept"
    process = _serving(tmp_path, "--keep", str(folder))
    try:
        _address(process)
        _audit(f"sqlite:///{folder}/records.db")
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.splitlines()[-1] == f"records and logs are in {folder}"
    with sqlite3.connect(folder / "records.db") as records:
        assert records.execute("SELECT bin_id, quantity FROM audits").fetchall() == [("00184", 2)]
    again = run_demo("--keep", str(folder))
    assert again.status == 1
    assert f"{folder}: is not empty; name another folder" in again.output.replace("\n", "")


def test_audits_are_not_removed_before_it_is_said(tmp_path):
    process = _serving(tmp_path, BINWATCH_BUCKET="my-bins")
    try:
        address = _address(process)
        (folder,) = tmp_path.glob("binwatch-demo-*")
        _audit(f"sqlite:///{folder}/records.db", "--bucket", "my-bins")
        process.send_signal(signal.SIGINT)
        said = next(line for line in process.stdout if "Ctrl-C;" in line)
        assert said.startswith("1 audit that was entered is removed on the next Ctrl-C")
        command = said.partition("in another terminal: ")[2].replace("audits.csv", f"{tmp_path}/audits.csv")
        elsewhere = os.environ | {"BINWATCH_BUCKET": "another-bucket"}
        subprocess.run(command, cwd=ROOT, env=elsewhere, shell=True, check=True)
        with (tmp_path / "audits.csv").open() as file:
            assert {(row["bin"], row["quantity"]) for row in csv.DictReader(file)} == {("00184", "2")}
        assert urllib.request.urlopen(address + "healthz", timeout=10).status == 200
    finally:
        _ended(process, signal.SIGINT)
    assert process.returncode == 0
    assert not folder.exists()


def test_the_database_is_named_and_the_command_shows_it(tmp_path):
    process = _serving(tmp_path)
    try:
        _address(process)
        (folder,) = tmp_path.glob("binwatch-demo-*")
        said = [next(process.stdout) for _ in range(3)][1:]
        assert said[0] == f"The database: {folder}/records.db\n"
        command = said[1].removeprefix("To look at it in another terminal: ")
        shown = subprocess.run(command, cwd=ROOT, shell=True, capture_output=True, text=True, check=True)
        assert "quantities: 122 read" in shown.stdout
    finally:
        _ended(process, signal.SIGINT)


@pytest.mark.parametrize(
    ("number", "audited"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGHUP, False)]
)
def test_a_signal_leaves_nothing_behind_but_audits(tmp_path, number, audited):
    process = _serving(tmp_path)
    try:
        _address(process)
        (folder,) = tmp_path.glob("binwatch-demo-*")
        parts = [_child(process.pid, name) for name in ("worker", "monitor")]
        if audited:
            _audit(f"sqlite:///{folder}/records.db")
    finally:
        said = _ended(process, number)
    assert process.returncode == 128 + number
    assert not [part for part in parts if Path(f"/proc/{part}").exists()]
    assert folder.exists() is audited
    assert ([line for line in said.splitlines() if line == f"records and logs are in {folder}"] != []) is audited


def test_a_signal_before_the_photos_are_counted_leaves_nothing_behind(tmp_path):
    process = _serving(tmp_path)
    try:
        _child(process.pid, "worker")
    finally:
        said = _ended(process, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in said
    assert not list(tmp_path.glob("binwatch-demo-*"))


def _audit(records: str, *more: str) -> None:
    command = [sys.executable, "-m", "monitor", "audit", "00184", "2", *more]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"BINWATCH_DATABASE_URL": records}, check=True)


def test_serve_leaves_the_page_and_the_metrics_running(tmp_path):
    process = _serving(tmp_path)
    try:
        address = _address(process)
        page = urllib.request.urlopen(address, timeout=10).read().decode()
        metrics = urllib.request.urlopen(address + "metrics", timeout=10).read().decode()
        assert "00184" in page
        assert re.search(r'^binwatch_photos_total\{.*outcome="counted".*\} 1(\.0)?$', metrics, re.MULTILINE)
        assert re.search(r"^binwatch_comparisons_total\{.*\} 1(\.0)?$", metrics, re.MULTILINE)
    finally:
        _ended(process, signal.SIGINT)
    assert process.returncode == 0


def test_photos_that_no_worker_counts_are_named(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(SAMPLES / "bin-images" / "00184.jpg", photos / "lost & found.jpg")
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", "--photos", str(photos), "--patience", "2"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.kill(_child(process.pid, "worker"), signal.SIGSTOP)  # it is there, but does nothing
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "unaccounted for, 1:" in output
    assert "bin-images/lost & found.jpg" in output


def _child(parent: int, module: str) -> int:
    """Process id of the child that runs `python -m module`, once it is there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
                is_child = f"PPid:\t{parent}\n" in (folder / "status").read_text()
            except OSError:  # it ended meanwhile
                continue
            if is_child and module.encode() in command:
                return int(folder.name)
        time.sleep(0.02)
    raise AssertionError(f"no child of {parent} runs {module}")


def _address(process: subprocess.Popen[str]) -> str:
    lines = []
    for line in process.stdout:
        lines.append(line)
        if found := re.search(r"The monitor's page: (http://\S+)", line):
            return found[1]
    raise AssertionError("no address was printed:\n" + "".join(lines))
