"""The bundles in samples/ and their documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from binwatch.bundle import Bundle, Metrics, Precision
from trainer.evaluation.onnx_model import OnnxModel

ROOT = Path(__file__).parents[2]
BUNDLES = [Bundle(ROOT / "samples" / name) for name in ("model", "model-lite")]
PAGE = (ROOT / "docs" / "model-card.md").read_text(encoding="utf-8")


def cell(figure: str, interval: dict[str, float]) -> str:
    value, low, high = interval["value"], interval["low"], interval["high"]
    if figure in ("rmse", "mae"):
        return f"{value:.2f} ({low:.2f}–{high:.2f})"
    return f"{100 * value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def row(name: str, photos: int, figures: dict[str, Any]) -> str:
    cells = [cell(figure, figures[figure]) for figure in ("accuracy", "within_one", "rmse", "mae", "ece")]
    return f"| {name} | {photos:,} | {' | '.join(cells)} |"


def rows(bundle: Bundle) -> list[str]:
    metrics: dict[str, Metrics] = bundle.card.metrics
    measured = bundle.card.variants[Precision.INT8].metrics
    return [row(name, metrics[name].photos, measured[name]) for name in metrics]


@pytest.fixture(params=BUNDLES, ids=lambda each: each.folder.name)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    result: Bundle = request.param
    return result


@pytest.mark.parametrize("expected", [row for bundle in BUNDLES for row in rows(bundle)])
def test_documented_figures_match_the_card(expected: str) -> None:
    assert expected in PAGE


def test_starter_model_beats_the_majority_class(bundle: Bundle) -> None:
    measured = bundle.card.variants[Precision.INT8].metrics
    for name, metrics in bundle.card.metrics.items():
        assert measured[name]["accuracy"]["low"] > metrics.majority_accuracy, name


def test_starter_models_are_small_and_the_only_files() -> None:
    for bundle in BUNDLES:
        assert {file.name for file in bundle.folder.iterdir()} == {"card.json", "model-int8.onnx"}
    assert sum(bundle.card.variants[Precision.INT8].bytes for bundle in BUNDLES) <= 30 * 2**20


def test_card_names_the_source_of_the_training_photos(bundle: Bundle) -> None:
    assert any("CC BY-NC-SA 3.0 US" in note for note in bundle.card.notes)


def test_starter_model_counts_sample_photos(bundle: Bundle) -> None:
    files = sorted((ROOT / "samples" / "bin-images").glob("*.jpg"))[:4]
    probabilities, embedding = OnnxModel(bundle.model_path(Precision.INT8))(
        np.stack([bundle.card.load_photo(file.read_bytes()).pixels for file in files])
    )
    assert probabilities.shape == (4, bundle.card.highest + 2)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert embedding.shape == (4, bundle.card.embedding_size)


def test_files_do_not_name_local_folders(bundle: Bundle) -> None:
    model = bundle.model_path(Precision.INT8).read_bytes()
    assert b"stack_trace" not in model
    assert b"site-packages" not in model
