"""Comparison of two models on the same photos, without a bucket."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainer.drawn import Data, run_cli
from tests.trainer.grey import write_grey_bundle
from trainer.display import silent_display
from trainer.evaluation.compare import compare_files


def test_compare_two_bundles(grey: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    better, worse = write_grey_bundle(tmp_path, "v2"), write_grey_bundle(tmp_path, "v1", brightness=0.5)
    run_cli("compare", better, worse, *grey.flags)
    printed = capsys.readouterr()
    assert "on the same test photos, 95 % intervals by bin group" in printed.out
    assert f"{better}: v2 int8\n{worse}: v1 int8\n" in printed.err
    result = compare_files(better, worse, {"photos": grey.photos, "index": grey.index}, silent_display())
    assert result.verdict().startswith(f"{better} is better than {worse} on 8 test photos: exact counts +100.0 points")
    assert printed.out.endswith(f"{result.verdict()}\n")


def test_compare_identical_models(grey: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write_grey_bundle(tmp_path, "v2"), write_grey_bundle(tmp_path, "v1")
    run_cli("compare", first, second, *grey.flags)
    assert capsys.readouterr().out == (
        f"{first} and {second} are the same model: each of 8 test photos gets the same probabilities from both\n"
    )


def test_compare_on_all_photos(grey: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right, nearly = write_grey_bundle(tmp_path, "v2"), write_grey_bundle(tmp_path, "v1", brightness=0.9)
    run_cli("compare", nearly, right, *grey.flags, "--every")
    output = capsys.readouterr().out
    assert f"{nearly} is not found to be better than {right} on 140 photos: exact counts -" in output
    result = compare_files(right, nearly, {"photos": grey.photos, "index": grey.index}, silent_display(), split=None)
    run_cli("evaluate", nearly, *grey.flags, "--every", "--out", tmp_path / "nearly.json")
    evaluated = json.loads((tmp_path / "nearly.json").read_text(encoding="utf-8"))["metrics"]["all"]["accuracy"]
    assert result.metrics[str(nearly)].accuracy.model_dump() == evaluated
    gain = result.difference["accuracy"]
    assert gain.value == pytest.approx(1 - evaluated["value"])
    assert 0 < gain.low < gain.value < gain.high < 1


def test_compare_a_checkpoint_and_a_bundle(
    fitted: Path, data: Data, tmp_path: Path, cli_error: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint stores the path of its photos; each model gets them as in production."""
    best, last = fitted / "best.pt", fitted / "last.pt"
    bundle = write_grey_bundle(tmp_path, "v1")
    run_cli("compare", best, bundle)
    assert f"than {bundle} on " in capsys.readouterr().out
    run_cli("evaluate", best, "--out", tmp_path / "best.json")
    evaluated = json.loads((tmp_path / "best.json").read_text(encoding="utf-8"))["metrics"]["test"]["accuracy"]
    result = compare_files(best, last, {}, silent_display())
    assert result.metrics[str(best)].accuracy.model_dump() == evaluated
    assert "is compared with itself; name two models" in cli_error(
        "compare", best, fitted / ".." / fitted.name / "best.pt"
    )
    assert "does not say which photos; give --photos and --index" in cli_error("compare", bundle, best)
