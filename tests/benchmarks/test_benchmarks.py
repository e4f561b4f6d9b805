"""Runs the small version of each benchmark. Results are in docs/performance.md; no figures are asserted here."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cost import ProcessCost
from benchmarks.memory import distinct, process_memory
from benchmarks.services import find_versitygw
from binwatch.bundle import Bundle
from binwatch.image import load_photo
from binwatch.settings import DEFAULT_MODEL
from tests.conftest import ROOT

PHOTOS = ROOT / "samples" / "bin-images"
HELP_ONLY = ("alerts", "alternatives", "engine_threads", "serving")  # the others are run by other tests


WITHIN_S = 240


@contextmanager
def _running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a benchmark in a process group that is killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _run(*command: str) -> tuple[int, str, str]:
    """Run a command and return its exit status, output and errors."""
    with _running(*command) as process:
        output, errors = process.communicate(timeout=WITHIN_S)
        return process.returncode, output, errors


def _output(*command: str) -> str:
    status, output, errors = _run(*command)
    assert status == 0, errors
    return output


@pytest.mark.parametrize("name", HELP_ONLY)
def test_help(name: str) -> None:
    status, output, errors = _run(f"benchmarks.{name}", "--help")
    assert (status, errors) == (0, "")
    assert output.startswith("usage: ")


def test_engine_threads() -> None:
    output = _output("benchmarks.engine_threads", "--threads", "2", "--batch-size", "4", "--rounds", "1")
    assert re.search(r"^a call for each thread +\d+\.\d photos/s", output, re.MULTILINE)


def test_engine_speed() -> None:
    """Compare with another bundle and with PyTorch, which is not compiled since that would take a minute."""
    small = ["--batch-sizes", "2", "--seconds", "0.1", "--rounds", "1", "--torch", "eager", "--beside", DEFAULT_MODEL]
    output = _output("benchmarks.engine_speed", *map(str, small))
    assert output.startswith("batches of 2, CPUExecutionProvider, ")
    first, *others = re.findall(r"^  (.+?) +[\d,]+\.\d photos/s \(.*?\)(.*)$", output, re.MULTILINE)
    version = Bundle(DEFAULT_MODEL).card.version
    assert first == (f"{version} int8", "")
    assert [name for name, _ in others] == [f"{version} int8", "PyTorch eager, fp32"]
    assert all(re.fullmatch(r"; the first is \d+\.\d\d × as fast \(.*\)", ratio) for _, ratio in others)


def test_engine_start() -> None:
    output = _output("benchmarks.engine_start", "--batch-size", "2", "--rounds", "1")
    for part, times in (("load", 2), ("warm 1, 2", 1), ("first batch", 2), ("third batch", 2)):
        assert len(re.findall(rf"^  {part} +[\d,]+\.\d ", output, re.MULTILINE)) == times


def test_bytes_to_counts() -> None:
    output = _output("benchmarks.bytes_to_counts", str(PHOTOS), "--photos", "9", "--batch-size", "4", "--rounds", "1")
    for part in (r"decoding alone, \d+ threads", "engine alone, batches of 4", "both together", "limit"):
        assert re.search(rf"^{part} +[\d,]+\.\d photos/s", output, re.MULTILINE)


def test_training_feed() -> None:
    small = ["--limit", "4", "--batch-size", "4", "--rounds", "1", "--threads", "2", "--readers", "2"]
    output = _output("benchmarks.training_feed", "--photos", str(PHOTOS), *small)
    assert output.startswith("ResNet50, 4 photos in batches of 4, fp32; ")
    assert re.search(
        r"^median +[\d,]+\.\d/s [\d,]+\.\d ms +[\d,]+\.\d/s [\d,]+\.\d ms +\d+\.\d%$", output, re.MULTILINE
    )


def test_training_step() -> None:
    small = ["--size", "64", "--batch-size", "2", "--rounds", "1", "--seconds", "0.01", "--threads", "1"]
    output = _output("benchmarks.training_step", *small)
    assert output.startswith("tf_efficientnet_lite0, 64×64, batches of 2, 1 threads, ")
    for way in ("fp32, contiguous", "fp32, channels last", "bf16, contiguous", "bf16, channels last"):
        assert re.search(rf"^  {way} +\d+\.\d photos/s", output, re.MULTILINE)


def test_memory_of_count() -> None:
    output = _output("benchmarks.memory", str(PHOTOS), "--of", "count", "--photos", "20")
    assert output.startswith("count, 20 photos in ")
    assert re.search(r"^ +20 +[\d,]+\.\d +[\d,]+\.\d$", output, re.MULTILINE)


def test_count_files(tmp_path: Path) -> None:
    for photo in sorted(PHOTOS.glob("*.jpg"))[:4]:
        shutil.copy2(photo, tmp_path)
    metadata = ("--metadata", str(ROOT / "samples" / "metadata"))
    output = _output("benchmarks.count_files", str(tmp_path), *metadata, "--rounds", "1")
    assert output.startswith("4 photos, ")
    for name in ("count", "check", "count, one photo"):
        assert re.search(rf"^{name} +\d+\.\d\d s +\d+\.\d\d s of processor time$", output, re.MULTILINE)
    assert re.search(r"^count reaches \d+\.\d% of the limit$", output, re.MULTILINE)
    assert re.search(r"^check takes \d+\.\d\d × the processor time of count \(", output, re.MULTILINE)


def test_bucket_to_record() -> None:
    """Use the real servers, which the other half of benchmarks.memory starts as well."""
    if shutil.which(find_versitygw()) is None:
        pytest.skip("versitygw is not installed: go install github.com/versity/versitygw/cmd/versitygw@latest")
    output = _output("benchmarks.bucket_to_record", str(PHOTOS), "--photos", "40", "--single", "2")
    assert re.search(r"^bucket to record +\d+\.\d photos/s, ", output, re.MULTILINE)
    assert re.search(r"^fetch +4\d ", output, re.MULTILINE)
    for program in ("worker", "PostgreSQL", "RabbitMQ", r"versitygw \(S3\)"):
        assert re.search(rf"^{program} +\d+\.\d s", output, re.MULTILINE)


def test_nightly() -> None:
    output = _output("benchmarks.nightly", str(PHOTOS), "--photos", "24")
    assert "24 photos recorded, 0 by local workers" in output
    assert re.search(r"^records +24 of 24 are the same in every column$", output, re.MULTILINE)


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: the extra benchmarks has it")
def test_alternatives() -> None:
    small = ["--photos", "24", "--notebook-photos", "2", "--rounds", "1"]
    assert "Ray Data, tuned" in _output("benchmarks.alternatives", str(PHOTOS), *small)


@pytest.mark.skipif(find_spec("litserve") is None, reason="LitServe is not installed: the extra benchmarks has it")
def test_serving() -> None:
    assert "LitServe, tuned" in _output("benchmarks.serving", str(PHOTOS), "--requests", "24", "--rounds", "1")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["bucket_to_record", str(PHOTOS), "--versitygw", "no-such-program"], "versitygw is not installed: go install"),
        (["memory", "no-such-folder"], "no-such-folder: no photos here"),
    ],
)
def test_missing_inputs_are_named(command: list[str], message: str) -> None:
    status, output, errors = _run(f"benchmarks.{command[0]}", *command[1:])
    assert (status, output) == (1, "")
    assert errors.startswith(message)


@pytest.mark.parametrize(("name", "library"), [("alternatives", "Ray"), ("serving", "LitServe")])
def test_a_missing_library_is_named(name: str, library: str) -> None:
    if find_spec(library.lower()) is not None:
        pytest.skip(f"{library} is installed")
    status, _, errors = _run(f"benchmarks.{name}", str(PHOTOS))
    assert status == 1
    assert errors.startswith(f"{library} is not installed: uv pip install -c requirements.lock -e '.[dev,benchmarks]'")


def test_auditors(tmp_path: Path) -> None:
    index = tmp_path / "index.csv"
    photos = [f"{number:05},{number % 9},{number:05}" for number in range(300)]
    index.write_text("\n".join(["key,label,bin_group", *photos]), encoding="utf-8")
    lines = _output("benchmarks.auditors", str(index), "--repetitions", "1").splitlines()
    assert [re.findall(r"\| (\d+) \|", line) for line in lines if "%" in line] == [["50"], ["200"]] * 5


def test_a_distinct_photo_looks_like_the_original() -> None:
    photo = next(PHOTOS.glob("*.jpg")).read_bytes()
    others = [distinct(photo, number) for number in range(3)]
    assert len({photo, *others}) == 4
    for other in others:
        np.testing.assert_array_equal(load_photo(other).pixels, load_photo(photo).pixels)


def test_cost_includes_child_processes() -> None:
    """A child process does a second of work. Sampling may miss the end of it but not most of it."""
    work = "import time\nwhile time.process_time() < 1: pass"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}], check=True)"
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        cost = ProcessCost(process.pid)
        process.wait(60)
    seconds, _ = cost.total()
    assert 0.5 < seconds < 1.5


def test_measured_memory_includes_the_allocation() -> None:
    code = "kept = bytearray(b'x' * 50_000_000); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        rss, pss = process_memory(process.pid)
        process.communicate("\n", timeout=60)
    assert 50_000_000 < pss <= rss < 200_000_000


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda file: file.stem)
def test_imports_of_each_benchmark_exist(file: Path) -> None:
    """Most benchmarks take minutes and are run by hand, so test that their imports exist."""
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in {"litserve", "ray"}:  # from the extra "benchmarks", which is not installed for tests
            raise
