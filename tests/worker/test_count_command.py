"""The command `python -m worker count`."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from binwatch.counts import CLASSES
from binwatch.objects import Objects
from binwatch.registry import CurrentModel, Registry
from binwatch.settings import Settings
from testing.brightness import brightness_of, jpeg, probabilities_of, write_brightness_bundle
from testing.services.s3 import S3
from worker.__main__ import main
from worker.rendering import Format, ResultLine, write_results

ROOT = Path(__file__).parent.parent.parent
Count = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def count(brightness_bundle: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Count:
    """Run the command in this process, which is faster and turns warnings into errors."""
    monkeypatch.setenv("BINWATCH_MODEL_DIR", str(brightness_bundle))

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
        command = ["worker", "count", *map(str, arguments)]
        capfdbinary.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command)
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as exited:
                main()
        return subprocess.CompletedProcess(command, int(exited.value.code or 0), *capfdbinary.readouterr())

    return run


@pytest.fixture
def count_process(brightness_bundle: Path) -> Count:
    """Run the command in its own process."""

    def run(*arguments: str | bytes | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "worker", "count", *arguments],
            cwd=ROOT,
            env=os.environ | {"BINWATCH_MODEL_DIR": str(brightness_bundle)} | environment,
            capture_output=True,
            timeout=60,
        )

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write photos of 0 to 6 items, named by count, among other files."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for n in range(7):
        (folder / ("more" if n > 3 else ".") / f"{n}.jpg").write_bytes(jpeg(brightness_of(n)))
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("not a photo")
    (folder / "cut.jpg").write_bytes(jpeg(100)[:-600])
    (folder / "notes.txt").write_text("neither")
    return folder


def _error(result: subprocess.CompletedProcess[bytes]) -> str:
    """Return the error line of a failed run; check that nothing else is printed."""
    assert result.returncode == 1
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def test_folder_as_json(count_process: Count, folder: Path) -> None:
    result = count_process(folder, "--json")
    assert result.returncode == 0
    lines = {Path(line["photo"]).stem: line for line in json.loads(result.stdout)}
    assert {name: line["count"] for name, line in lines.items()} == {
        **{str(n): name for n, name in enumerate(CLASSES)},
        "cut": None,
        "empty": None,
        "text": None,
    }
    for n in range(7):
        assert lines[str(n)]["probabilities"] == pytest.approx(probabilities_of(brightness_of(n)), abs=1e-3)
        assert lines[str(n)]["confidence"] == lines[str(n)]["probabilities"][n]
        assert (lines[str(n)]["reason"], lines[str(n)]["detail"]) == (None, None)
    assert {name: lines[name]["reason"] for name in ("cut", "empty", "text")} == {
        "cut": "truncated",
        "empty": "empty",
        "text": "not_an_image",
    }
    assert lines["empty"]["detail"] == "the file is empty (0 bytes); upload the photo again"
    skipped = f"skipped: 1 with a suffix of neither photos nor metadata ('{folder / 'notes.txt'}')"
    assert result.stderr.decode() == f"counted by brightness-1\n{skipped}\n7 counted, 3 failed\n"


def test_folder_as_csv(count: Count, folder: Path) -> None:
    result = count(folder, "--csv")
    assert result.returncode == 0
    rows = list(csv.DictReader(io.StringIO(result.stdout.decode(), newline="")))
    assert len(rows) == 10
    by_name = {Path(row["photo"]).stem: row for row in rows}
    assert by_name["6"]["count"] == "more than 5"
    assert float(by_name["6"]["p(more than 5)"]) == float(by_name["6"]["confidence"]) > 0.5
    assert sum(float(by_name["2"][f"p({name})"]) for name in CLASSES) == pytest.approx(1, abs=1e-5)
    assert [by_name["text"][name] for name in ("count", "confidence", "p(0)", "reason")] == ["", "", "", "not_an_image"]


def test_folder_as_a_table(count: Count, folder: Path) -> None:
    result = count(folder)
    assert result.returncode == 0
    lines = [line.split("│")[1:-1] for line in result.stdout.decode().splitlines() if line.startswith("│")]
    cells = {Path(line[0].strip()).stem: [cell.strip() for cell in line[1:]] for line in lines}
    assert cells["3"][0] == "3"
    assert cells["3"][1].endswith("%")
    assert cells["6"][0] == "more than 5"
    assert cells["empty"][0] == "–"
    assert cells["empty"][2].startswith("empty: the file is empty")


def test_counts_beyond_five_are_shown_if_the_model_distinguishes_them() -> None:
    def said(count: str, distribution: list[float] | None) -> str:
        out = io.StringIO()
        line = ResultLine("a.jpg", count, 0.9, distribution and [0.0] * 7, distribution=distribution)
        assert write_results([line], Format.TABLE, out) == (1, 0)
        return out.getvalue().splitlines()[3].split("│")[2].strip()

    def beyond_five(**share: float) -> list[float]:
        return [share.get(f"p{number}", 0.0) for number in range(21)]

    assert said("more than 5", beyond_five(p14=0.2, p17=0.5, p19=0.3)) == "about 17 (14 to 19)"
    assert said("more than 5", beyond_five(p14=0.2, p17=0.5, p20=0.3)) == "about 17 (14 or more)"
    assert said("more than 5", beyond_five(p17=1)) == "about 17"
    assert said("more than 5", beyond_five(p18=0.2, p20=0.8)) == "more than 19 (18 or more)"
    assert said("more than 5", None) == "more than 5"
    assert said("3", beyond_five(p3=0.8, p17=0.2)) == "3"


def test_named_files_keep_their_order(count: Count, folder: Path) -> None:
    """Explicitly named files are read regardless of their suffix."""
    (folder / "photo.bin").write_bytes(jpeg(brightness_of(5)))
    result = count(folder / "2.jpg", folder / "photo.bin", folder / "notes.txt", folder / "0.jpg", "--json")
    assert [(Path(line["photo"]).name, line["count"]) for line in json.loads(result.stdout)] == [
        ("2.jpg", "2"),
        ("photo.bin", "5"),
        ("notes.txt", None),
        ("0.jpg", "0"),
    ]


def test_s3_prefix(count_process: Count, s3: S3) -> None:
    for n, key in enumerate(["in/a b+c%.jpg", "in/ü.jpg", "in/deep/3.png", "out/4.jpg"]):
        s3.put(key, jpeg(brightness_of(n)))
    s3.put("in/empty.jpg", b"")
    s3.put("in/1.json", b"{}")
    result = count_process(f"s3://{s3.bucket}/in/", "--json", BINWATCH_S3_ENDPOINT_URL=s3.endpoint_url)
    assert result.returncode == 0
    prefix = f"s3://{s3.bucket}/in/"
    assert {
        line["photo"].removeprefix(prefix): line["count"] or line["reason"] for line in json.loads(result.stdout)
    } == {
        "a b+c%.jpg": "0",
        "ü.jpg": "1",
        "deep/3.png": "2",
        "empty.jpg": "empty",
    }


def test_workers_bucket_is_counted_with_the_promoted_model(count_process: Count, s3: S3, tmp_path: Path) -> None:
    s3.put("in/1.jpg", jpeg(brightness_of(1)))
    registry = Registry(Objects(Settings(s3_endpoint_url=s3.endpoint_url)), s3.bucket, "models/")
    registry.publish(write_brightness_bundle(tmp_path, "brightness-2"))
    registry.set_current(CurrentModel(version="brightness-2", promoted=datetime.now(UTC)), None)
    where = {"BINWATCH_S3_ENDPOINT_URL": s3.endpoint_url, "BINWATCH_MODEL_CACHE": str(tmp_path / "cache")}
    elsewhere = count_process(f"s3://{s3.bucket}/in/", "--json", **where)
    assert elsewhere.stderr == b"counted by brightness-1\n"
    own = count_process(f"s3://{s3.bucket}/in/", "--json", BINWATCH_BUCKET=s3.bucket, **where)
    assert own.stderr == b"counted by brightness-2\n"
    assert [line["count"] for line in json.loads(own.stdout)] == ["1"]


def test_s3_is_unreachable(count_process: Count, s3: S3, closed_url: str) -> None:
    endpoint = {"BINWATCH_S3_ENDPOINT_URL": s3.endpoint_url}
    assert "bucket 'no-such-bucket' does not exist" in _error(count_process("s3://no-such-bucket/", **endpoint))
    assert "no photos here" in _error(count_process(f"s3://{s3.bucket}/", **endpoint))
    unreachable = count_process(f"s3://{s3.bucket}/", BINWATCH_S3_ENDPOINT_URL=closed_url)
    assert "check the endpoint, the credentials and the network" in _error(unreachable)


HARD_NAMES = ["[red]x.jpg", "a,b.jpg", 'quo"te.jpg', "two\nlines.jpg", "ü 日本.jpg", "\x1b[31mred.jpg", "=1+1.jpg"]
NOT_TEXT = b"caf\xe9.jpg"


@pytest.fixture
def hard_names(tmp_path: Path) -> Path:
    folder = tmp_path / "hard"
    folder.mkdir()
    for n, name in enumerate(HARD_NAMES):
        (folder / name).write_bytes(jpeg(brightness_of(n)))
    (folder / os.fsdecode(NOT_TEXT)).write_bytes(b"bad")
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_hard_names_as_json(count_process: Count, hard_names: Path, encoding: str) -> None:
    result = count_process(hard_names, "--json", PYTHONIOENCODING=encoding)
    assert result.returncode == 0
    counts = {line["photo"]: line["count"] for line in json.loads(result.stdout.decode(encoding))}
    assert counts == {
        **{f"{hard_names}/{name}": CLASSES[n] for n, name in enumerate(HARD_NAMES)},
        f"{hard_names}/{os.fsdecode(NOT_TEXT)}": None,
    }


def test_hard_names_as_csv(count: Count, hard_names: Path) -> None:
    result = count(hard_names, "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout.decode(), newline="")))
    assert {row["photo"]: row["count"] for row in rows} == {
        **{f"{hard_names}/{name}": CLASSES[n] for n, name in enumerate(HARD_NAMES)},
        f"{hard_names}/caf\\udce9.jpg": "",
    }


def test_csv_escapes_names_that_look_like_formulas(
    count: Count, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "=HYPERLINK(1).jpg"
    (tmp_path / name).write_bytes(jpeg(brightness_of(1)))
    rows = list(csv.DictReader(io.StringIO(count(name, "--csv").stdout.decode(), newline="")))
    assert [(row["photo"], row["count"]) for row in rows] == [("'" + name, "1")]


def test_hard_names_as_a_table(count_process: Count, hard_names: Path) -> None:
    result = count_process(hard_names)
    assert result.returncode == 0
    text = result.stdout.decode()
    assert "\x1b" not in text
    for shown in ("[red]x.jpg", "two\\nlines.jpg", "\\x1b[31mred.jpg", "ü 日本.jpg", "caf\\udce9.jpg"):
        assert f"{hard_names}/{shown} " in text


def test_no_photo_could_be_counted(count: Count, folder: Path) -> None:
    result = count(folder / "empty.jpg", "--json")
    assert result.returncode == 1
    assert [line["reason"] for line in json.loads(result.stdout)] == ["empty"]
    assert result.stderr == b"counted by brightness-1\n0 counted, 1 failed\n"


def test_no_photos(count: Count, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert _error(count(tmp_path)).startswith(f"{tmp_path}: no photos here (.jpg,")


def test_unreadable_folder_is_named(count: Count, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its photos would be missing from the list without notice."""
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if path == str(folder / "more"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # tests may run as root, who can read any folder
    assert _error(count(folder)) == f"{folder}/more: cannot be listed (Permission denied); allow it, or remove it"


@pytest.mark.parametrize("name", ["not-there.jpg", "x" * 300 + ".jpg"])
def test_missing_path(count: Count, folder: Path, name: str) -> None:
    result = count(folder / name, "--json")
    assert _error(result) == f"{folder / name}: does not exist; name a photo, a folder or s3://bucket/prefix"
    assert result.stdout == b""


def test_json_is_valid_after_an_outage(brightness_bundle: Path) -> None:
    def lines() -> Any:
        yield ResultLine("1.jpg", "2", 0.9, [0.1] * 7)
        raise ConnectionError("no S3")

    out = io.StringIO()
    with pytest.raises(ConnectionError):
        write_results(lines(), Format.JSON, out)
    assert [line["photo"] for line in json.loads(out.getvalue())] == ["1.jpg"]


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--json", "--csv"], {}, "--json and --csv exclude each other; choose one"),
        ([], {"BINWATCH_BATCH_SIEZ": "4"}, "BINWATCH_BATCH_SIEZ is not a setting; did you mean BINWATCH_BATCH_SIZE?"),
        ([], {"BINWATCH_BATCH_SIZE": "0"}, "BINWATCH_BATCH_SIZE: Input should be greater than or equal to 1"),
        ([], {"BINWATCH_PRECISION": "fp16"}, "no fp16 variant in card.json (found: int8)"),
        (["--model", "/no/such/bundle"], {}, "/no/such/bundle/card.json: cannot be read (No such file or directory)"),
    ],
)
def test_bad_settings(
    count: Count, folder: Path, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    result = count(folder, *arguments, **environment)
    assert message in _error(result)
    assert result.stdout == b""


def test_limits_are_settings(count: Count, folder: Path) -> None:
    photo = folder / "1.jpg"
    limits = {"BINWATCH_MAX_PHOTO_BYTES": "100", "BINWATCH_MAX_PHOTO_PIXELS": "65535"}
    reasons = []
    for name, limit in limits.items():
        result = count(photo, "--json", **{name: limit})
        assert result.returncode == 1
        reasons += [line["reason"] for line in json.loads(result.stdout)]
    assert reasons == ["too_large", "too_many_pixels"]


def test_device_is_read_up_to_the_limit(count_process: Count) -> None:
    result = count_process("/dev/zero", "--json", BINWATCH_MAX_PHOTO_BYTES="1000")
    assert [line["reason"] for line in json.loads(result.stdout)] == ["too_large"]


def test_another_model(count: Count, folder: Path, tmp_path: Path) -> None:
    bundle = write_brightness_bundle(tmp_path / "other")
    result = count(folder / "3.jpg", "--json", "--model", bundle, BINWATCH_MODEL_DIR="/no/such/bundle")
    assert [line["count"] for line in json.loads(result.stdout)] == ["3"]


def test_help_names_exclusive_options(count_process: Count) -> None:
    result = count_process("--help", COLUMNS="200", TERM="dumb")
    assert result.returncode == 0
    text = result.stdout.decode()
    assert "not with --csv" in text
    assert "not with --json" in text
    assert "Exits with 1 if no photo could be counted" in text
