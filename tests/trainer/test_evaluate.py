"""The command `evaluate`: HTML report, challenge protocol, and photos without a split."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.drawn import QUICK, Data, run_cli, write_index
from tests.trainer.grey import write_grey_bundle
from trainer.evaluation.evaluate import report_file
from trainer.evaluation.report import ReliabilityBin, reliability, worst_photos


@pytest.fixture
def half_bright_model(tmp_path: Path) -> Path:
    """Write a model that sees photos half as bright: it counts 0 for 1, 1 for 2 and 3, …"""
    return write_grey_bundle(tmp_path, "half", brightness=0.5)


class Tags(HTMLParser):
    """Collects tags with their attributes and checks that all elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(file: Path) -> tuple[str, list[tuple[str, dict[str, str | None]]]]:
    text = file.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    return text, tags.tags


def test_the_page_shows_metrics_and_the_worst_photos(half_bright_model: Path, grey: Data, tmp_path: Path) -> None:
    run_cli("evaluate", half_bright_model, *grey.flags, "--every", "--out", tmp_path / "e.json")
    result = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert result["split"] == "all"
    assert result["metrics"]["all"]["photos"] == 140
    assert result["metrics"]["all"]["accuracy"]["value"] == pytest.approx(1 / 7)
    text, tags = read(tmp_path / "e.html")
    assert "<td>accuracy</td><td>14.3% <small>(" in text
    assert text.count("<tr><td>more than 5</td>") == 1
    pictures = [str(attributes["src"]) for tag, attributes in tags if tag == "img"]
    assert len(pictures) == 24
    data = base64.b64decode(pictures[0].removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (224, 224)
    assert len(re.findall(r"label 6, counted 3", text)) == 20  # 3 items too few, the largest error
    assert "<circle" in text


def test_the_page_loads_nothing_from_other_hosts(half_bright_model: Path, grey: Data, tmp_path: Path) -> None:
    run_cli("evaluate", half_bright_model, *grey.flags, "--out", tmp_path / "e.json")
    text, tags = read(tmp_path / "e.html")
    for tag, attributes in tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for name in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "http" not in text
    assert "url(" not in text


def test_keys_are_escaped_in_html(half_bright_model: Path, tmp_path: Path) -> None:
    data = Data(tmp_path)
    data.photos.mkdir()
    Image.new("RGB", (8, 8), (255, 255, 255)).save(data.photos / "<b>&.png")
    write_index(data.index, [("<b>&", 1, "g")])
    run_cli("evaluate", half_bright_model, *data.flags, "--every", "--out", tmp_path / "e.json")
    text, _ = read(tmp_path / "e.html")
    assert "<b>&lt;b&gt;&amp;</b>" in text


def test_the_challenge_uses_photos_of_0_to_5_items(
    half_bright_model: Path, grey: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli("evaluate", half_bright_model, *grey.flags, "--challenge", "--every", "--out", tmp_path / "e.json")
    metrics = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))["metrics"]
    assert list(metrics) == ["all 0-5 (challenge)", "all 1-5 (challenge)"]
    assert metrics["all 0-5 (challenge)"]["photos"] == 120
    assert metrics["all 0-5 (challenge)"]["per_class"]["more than 5"]["photos"] == 0
    assert "all 0-5 (challenge)" in capsys.readouterr().out
    text, _ = read(tmp_path / "e.html")
    assert "label 6" not in text


def test_a_model_without_mistakes_has_no_worst_photos(grey: Data, tmp_path: Path) -> None:
    model = write_grey_bundle(tmp_path, "right")
    run_cli("evaluate", model, *grey.flags)
    assert "<p>None.</p>" in (tmp_path / "evaluation" / "test-right.html").read_text(encoding="utf-8")


def test_training_on_prepared_photos_needs_their_jpeg_quality(
    half_bright_model: Path, grey: Data, tmp_path: Path, cli_error: Callable[..., str]
) -> None:
    data = Data(tmp_path)
    data.photos.symlink_to(grey.photos)
    data.index.write_bytes(grey.index.read_bytes())
    (tmp_path / "prepared.json").write_text(json.dumps({"size": 224, "jpeg_quality": 95}), encoding="utf-8")
    run_cli("evaluate", half_bright_model, *data.flags)  # a model trained elsewhere treats them as ordinary photos
    message = cli_error("fit", *data.flags, "--out", tmp_path / "run", *QUICK)
    assert "the photos were stored as JPEGs of 224×224 and quality 95; set data.jpeg_quality=95" in message


def test_reliability() -> None:
    confidence = np.array([0.1, 0.12, 0.95, 0.97, 1.0])
    result = reliability(confidence, np.array([False, True, True, True, False]), bins=10)
    assert result == [
        ReliabilityBin(pytest.approx(0.11), 0.5, 2),  # type: ignore[arg-type]
        ReliabilityBin(pytest.approx(2.92 / 3), pytest.approx(2 / 3), 3),  # type: ignore[arg-type]
    ]


def test_worst_photos_are_wrong_ones_with_the_least_likely_label_first() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.95, 0.05]])
    labels = np.array([1, 1, 1, 1])
    assert worst_photos(probabilities, labels) == [3, 0, 1]
    assert worst_photos(probabilities, labels, limit=1) == [3]


def test_the_challenge_needs_photos_of_0_to_5_items(
    half_bright_model: Path, tmp_path: Path, cli_error: Callable[..., str]
) -> None:
    data = Data(tmp_path)
    data.photos.mkdir()
    Image.new("RGB", (8, 8), (255, 255, 255)).save(data.photos / "a.png")
    write_index(data.index, [("a", 9, "g")])
    message = cli_error("evaluate", half_bright_model, *data.flags, "--every", "--challenge")
    assert message == "error: no photo is labelled 0 to 5: there is nothing for --challenge to measure"


def test_all_photos_need_no_split_column(half_bright_model: Path, grey: Data, tmp_path: Path) -> None:
    """The model's own data set had a split column; other photos need none."""
    card = json.loads((half_bright_model / "card.json").read_text(encoding="utf-8"))
    card["training"] = {"config": {"data": {"split_column": "challenge_split"}}}
    (half_bright_model / "card.json").write_text(json.dumps(card), encoding="utf-8")
    run_cli("evaluate", half_bright_model, *grey.flags, "--every", "--out", tmp_path / "new" / "e.json")
    assert json.loads((tmp_path / "new" / "e.json").read_text(encoding="utf-8"))["metrics"]["all"]["photos"] == 140


def test_the_output_path_is_checked_before_measuring(
    half_bright_model: Path, grey: Data, tmp_path: Path, cli_error: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.evaluation.evaluate.evaluate", lambda *_, **__: pytest.fail("measured"))
    (tmp_path / "file").touch()
    message = cli_error("evaluate", half_bright_model, *grey.flags, "--out", tmp_path / "file" / "e.json")
    assert message == f"error: {tmp_path / 'file'}: cannot be made (File exists); choose another folder"


def test_a_bundle_needs_the_path_of_its_photos(
    half_bright_model: Path, tmp_path: Path, cli_error: Callable[..., str]
) -> None:
    card = json.loads((half_bright_model / "card.json").read_text(encoding="utf-8"))
    card["training"] = {"config": {"data": {"photos": "photos.tar", "index": "index.csv"}}}
    (half_bright_model / "card.json").write_text(json.dumps(card), encoding="utf-8")
    assert cli_error("evaluate", half_bright_model).endswith("trained on are not known; give --photos and --index")


def test_reports_of_different_models_have_different_files(grey: Data, tmp_path: Path) -> None:
    for version, brightness in (("v1", 1.0), ("v2", 0.5)):
        run_cli("evaluate", write_grey_bundle(tmp_path, version, brightness=brightness), *grey.flags)
    reports = tmp_path / "evaluation"
    result = {file.name: json.loads(file.read_text(encoding="utf-8"))["model"] for file in reports.glob("*.json")}
    assert result == {"test-v1.json": "v1 int8", "test-v2.json": "v2 int8"}
    assert {file.stem for file in reports.glob("*.html")} == {"test-v1", "test-v2"}
    run = tmp_path / "run"
    names = {
        report_file(run / name, "test", variant).name for name in ("best.pt", "last.pt") for variant in (None, "int8")
    }
    assert names == {"test.json", "test-int8.json", "test-last.json", "test-last-int8.json"}
