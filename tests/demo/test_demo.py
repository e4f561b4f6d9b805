"""Tests of the demo as a user runs it, with the real model, photos, processes and HTTP."""

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


def test_all_samples_are_counted_and_compared(run_demo):
    result = run_demo()
    assert result.status == 0, result.output
    report = result.report
    with (SAMPLES / "index.csv").open() as file:
        labels = {f"bin-images/{row['key']}.jpg": int(row["label"]) for row in csv.DictReader(file)}
    assert report["photos"] == report["counted"] == report["compared"] == len(labels) == 122
    assert report["failed"] == {}
    assert report["unaccounted"] == []
    assert {bin_["key"]: bin_["expected"] for bin_ in report["bins"]} == labels
    assert report["model"]["variant"] == "int8"
    assert report["model"]["provider"] == "CPUExecutionProvider"
    assert report["photos_per_second"] > 0


def test_report_totals_match_its_bins(run_demo):
    report = run_demo().report
    errors = [bin_["predicted"] - min(bin_["expected"], 6) for bin_ in report["bins"]]
    assert report["agreement"] == pytest.approx(sum(error == 0 for error in errors) / len(errors), abs=1e-4)
    assert report["mae"] == pytest.approx(sum(map(abs, errors)) / len(errors), abs=1e-4)
    assert report["rmse"] == pytest.approx(math.sqrt(sum(e * e for e in errors) / len(errors)), abs=1e-4)
    assert report["within_one"] == pytest.approx(sum(abs(e) <= 1 for e in errors) / len(errors), abs=1e-4)
    for bin_ in report["bins"]:
        assert sum(bin_["probabilities"]) == pytest.approx(1, abs=1e-4)
        assert bin_["predicted"] == max(range(7), key=bin_["probabilities"].__getitem__)
        assert (
            bin_["outcome"] == {0: "exact", 1: "over", -1: "under"}[_sign(bin_["predicted"] - min(bin_["expected"], 6))]
        )


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


def test_proxy_of_shell_is_not_used(run_demo):
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    result = run_demo(**dict.fromkeys(proxies, "http://127.0.0.1:9"))
    assert result.status == 0, result.output
    assert result.report["counted"] == 122


def test_bad_input_gets_reason_and_rest_is_counted(run_demo, tmp_path):
    photos, metadata = tmp_path / "photos", tmp_path / "metadata"
    expected = make_bad_folder(photos, metadata)
    result = run_demo("--photos", str(photos), "--metadata", str(metadata))
    assert result.status == 0, result.output
    outcomes = {
        bin_["key"].removeprefix("bin-images/"): (bin_["reason"], bin_["expected"]) for bin_ in result.report["bins"]
    }
    assert outcomes == expected
    assert result.report["failed"] == dict(Counter(reason for reason, _ in expected.values() if reason))
    assert result.report["metadata_failed"] == {"not_json": 1, "no_expected_quantity": 1, "bad_expected_quantity": 1}
    assert result.report["compared"] == 6
    without = {bin_["key"] for bin_ in result.report["bins"] if bin_["outcome"] == "no expected quantity"}
    nothing_known = ("no metadata.jpg", "broken.jpg", "lacking.jpg", "minus.jpg")
    assert without == {f"bin-images/{name}" for name in nothing_known}
    for bin_ in result.report["bins"]:
        if bin_["reason"]:
            assert bin_["detail"]
            assert bin_["key"] in result.output


def make_bad_folder(photos: Path, metadata: Path) -> dict[str, tuple[str | None, int | None]]:
    """Write valid and invalid files. Returns name → (expected reason, expected quantity)."""
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
    """A PNG whose header declares these dimensions, with little data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_folder_without_photos_is_an_error(run_demo, tmp_path):
    result = run_demo("--photos", str(tmp_path))
    assert result.status == 1
    assert f"{tmp_path}: no photos here" in result.output.replace("\n", "")
    assert "Traceback" not in result.output


def test_misspelt_setting_is_an_error_with_suggestion(run_demo):
    result = run_demo(BINWATCH_GROUP_FOTOS="8")
    assert result.status == 1
    assert "BINWATCH_GROUP_FOTOS is not a setting; did you mean BINWATCH_GROUP_PHOTOS?" in result.output
    assert result.report is None


def test_bundle_with_wrong_checksum_stops_demo(run_demo, tmp_path):
    bundle = tmp_path / "model"
    shutil.copytree(SAMPLES / "model", bundle)
    model = next(bundle.glob("*.onnx"))
    model.write_bytes(model.read_bytes() + b"\0")
    result = run_demo(BINWATCH_MODEL_DIR=str(bundle))
    assert result.status == 1
    assert "SHA-256" in result.output
    assert str(model) in result.output.replace("\n", "")


def test_relative_path_in_setting_is_relative_to_current_folder(run_demo, tmp_path):
    shutil.copytree(SAMPLES / "model-lite", tmp_path / "mine")
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(SAMPLES / "bin-images" / "00184.jpg", photos)
    result = run_demo("--photos", "photos", cwd=tmp_path, BINWATCH_MODEL_DIR="mine")
    assert result.status == 0, result.output
    assert result.report["model"]["version"] == "starter-2"


def _start_serving(tmp_path: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(SAMPLES / "bin-images" / "00184.jpg", photos)
    arguments = ["--photos", str(photos), "--metadata", str(SAMPLES / "metadata"), "--serve", *options]
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup, whose handling is inherited
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "demo", *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    finally:
        signal.signal(signal.SIGHUP, previous)


def _end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """End a process with a signal, and return its remaining output."""
    process.send_signal(number)
    try:
        return process.communicate(timeout=60)[0]
    finally:
        process.kill()  # does nothing if it has ended


def test_keep_option_keeps_records(tmp_path, run_demo):
    folder = tmp_path / "kept"
    process = _start_serving(tmp_path, "--keep", str(folder))
    try:
        _page_url(process)
        _audit(f"sqlite:///{folder}/records.db")
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.splitlines()[-1] == f"records and logs are in {folder}"
    with sqlite3.connect(folder / "records.db") as records:
        assert records.execute("SELECT bin_id, quantity FROM audits").fetchall() == [("00184", 2)]
    second_run = run_demo("--keep", str(folder))
    assert second_run.status == 1
    assert f"{folder}: is not empty; name another folder" in second_run.output.replace("\n", "")


def test_interrupt_warns_before_audits_are_removed(tmp_path):
    process = _start_serving(tmp_path, BINWATCH_BUCKET="my-bins")
    try:
        address = _page_url(process)
        (folder,) = tmp_path.glob("binwatch-demo-*")
        _audit(f"sqlite:///{folder}/records.db", "--bucket", "my-bins")
        process.send_signal(signal.SIGINT)
        output = next(line for line in process.stdout if "Ctrl-C;" in line)
        assert output.startswith("1 audit that was entered is removed on the next Ctrl-C")
        command = output.partition("in another terminal: ")[2].replace("audits.csv", f"{tmp_path}/audits.csv")
        environment = os.environ | {"BINWATCH_BUCKET": "another-bucket"}
        subprocess.run(command, cwd=ROOT, env=environment, shell=True, check=True)
        with (tmp_path / "audits.csv").open() as file:
            assert {(row["bin"], row["quantity"]) for row in csv.DictReader(file)} == {("00184", "2")}
        assert urllib.request.urlopen(address + "healthz", timeout=10).status == 200
    finally:
        _end(process, signal.SIGINT)
    assert process.returncode == 0
    assert not folder.exists()


def test_printed_command_shows_database(tmp_path):
    process = _start_serving(tmp_path)
    try:
        _page_url(process)
        (folder,) = tmp_path.glob("binwatch-demo-*")
        lines = [next(process.stdout) for _ in range(3)][1:]
        assert lines[0] == f"The database: {folder}/records.db\n"
        command = lines[1].removeprefix("To look at it in another terminal: ")
        shown = subprocess.run(command, cwd=ROOT, shell=True, capture_output=True, text=True, check=True)
        assert "quantities: 122 read" in shown.stdout
    finally:
        _end(process, signal.SIGINT)


@pytest.mark.parametrize(
    ("number", "audited"), [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGHUP, False)]
)
def test_signal_leaves_only_audits_behind(tmp_path, number, audited):
    process = _start_serving(tmp_path)
    try:
        _page_url(process)
        (folder,) = tmp_path.glob("binwatch-demo-*")
        children = [_child_pid(process.pid, name) for name in ("worker", "monitor")]
        if audited:
            _audit(f"sqlite:///{folder}/records.db")
    finally:
        output = _end(process, number)
    assert process.returncode == 128 + number
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert folder.exists() is audited
    assert ([line for line in output.splitlines() if line == f"records and logs are in {folder}"] != []) is audited


def test_signal_before_counting_leaves_nothing_behind(tmp_path):
    process = _start_serving(tmp_path)
    try:
        _child_pid(process.pid, "worker")
    finally:
        output = _end(process, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in output
    assert not list(tmp_path.glob("binwatch-demo-*"))


def _audit(database_url: str, *options: str) -> None:
    command = [sys.executable, "-m", "monitor", "audit", "00184", "2", *options]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"BINWATCH_DATABASE_URL": database_url}, check=True)


def test_serve_keeps_page_and_metrics_running(tmp_path):
    process = _start_serving(tmp_path)
    try:
        address = _page_url(process)
        page = urllib.request.urlopen(address, timeout=10).read().decode()
        metrics = urllib.request.urlopen(address + "metrics", timeout=10).read().decode()
        assert "00184" in page
        assert re.search(r'^binwatch_photos_total\{.*outcome="counted".*\} 1(\.0)?$', metrics, re.MULTILINE)
        assert re.search(r"^binwatch_comparisons_total\{.*\} 1(\.0)?$", metrics, re.MULTILINE)
    finally:
        _end(process, signal.SIGINT)
    assert process.returncode == 0


def test_uncounted_photos_are_listed(tmp_path):
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
    os.kill(_child_pid(process.pid, "worker"), signal.SIGSTOP)  # it exists, but does nothing
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "unaccounted for, 1:" in output
    assert "bin-images/lost & found.jpg" in output


def _child_pid(parent: int, module: str) -> int:
    """Wait for the child process that runs `python -m MODULE`, and return its id."""
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


def _page_url(process: subprocess.Popen[str]) -> str:
    """Wait until the URL of the monitor's page is printed, and return it."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if match := re.search(r"The monitor's page: (http://\S+)", line):
            return match[1]
    raise AssertionError("no address was printed:\n" + "".join(lines))
