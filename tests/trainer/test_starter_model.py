"""The bundle that ships in samples/model, and what is written about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from binwatch.bundle import Bundle, Metrics, Precision
from trainer.evaluation.onnx_model import OnnxModel

ROOT = Path(__file__).parents[2]
BUNDLE = Bundle(ROOT / "samples" / "model")
PAGE = (ROOT / "docs" / "model-card.md").read_text(encoding="utf-8")


def cell(figure: str, found: dict[str, float]) -> str:
    value, low, high = found["value"], found["low"], found["high"]
    if figure in ("rmse", "mae"):
        return f"{value:.2f} ({low:.2f}–{high:.2f})"
    return f"{100 * value:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def row(name: str, photos: int, figures: dict[str, Any]) -> str:
    cells = [cell(figure, figures[figure]) for figure in ("accuracy", "within_one", "rmse", "mae", "ece")]
    return f"| {name} | {photos:,} | {' | '.join(cells)} |"


def rows() -> list[str]:
    metrics: dict[str, Metrics] = BUNDLE.card.metrics
    measured = BUNDLE.card.variants[Precision.INT8].metrics
    return [row(name, metrics[name].photos, measured[name]) for name in metrics]


@pytest.mark.parametrize("expected", rows())
def test_the_model_card_gives_the_figures_of_the_file(expected: str) -> None:
    assert expected in PAGE


def test_it_beats_the_majority() -> None:
    measured = BUNDLE.card.variants[Precision.INT8].metrics
    for name, metrics in BUNDLE.card.metrics.items():
        assert measured[name]["accuracy"]["low"] > metrics.majority_accuracy, name


def test_it_is_small_and_alone() -> None:
    assert {file.name for file in BUNDLE.folder.iterdir()} == {"card.json", "model-int8.onnx"}
    assert BUNDLE.card.variants[Precision.INT8].bytes <= 30 * 2**20


def test_it_counts_sample_photos() -> None:
    files = sorted((ROOT / "samples" / "bin-images").glob("*.jpg"))[:4]
    probabilities, embedding = OnnxModel(BUNDLE.model(Precision.INT8))(
        np.stack([BUNDLE.card.load_photo(file.read_bytes()).pixels for file in files])
    )
    assert probabilities.shape == (4, 7)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert embedding.shape == (4, BUNDLE.card.embedding_size)


def test_it_names_no_folder_of_the_machine_that_made_it() -> None:
    model = BUNDLE.model(Precision.INT8).read_bytes()
    assert b"stack_trace" not in model
    assert b"site-packages" not in model
