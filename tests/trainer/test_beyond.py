"""Networks with more outputs than the seven classes, and labels such as "6+"."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from binwatch.bundle import Bundle, Precision
from binwatch.counts import class_probabilities
from tests.trainer.drawn import QUICK, Data, run_cli, write_index
from trainer.config import DataConfig, ModelConfig, TrainConfig
from trainer.data.dataset import load_dataset, load_photos
from trainer.data.index import read_index
from trainer.data.split import Split
from trainer.evaluation.metrics import counts_of, quantity_errors
from trainer.evaluation.onnx_model import OnnxModel
from trainer.evaluation.temperature import PriorShift, best_temperature, log_loss, softmax
from trainer.models import build
from trainer.models.class_mask import MASKED_LOGIT
from trainer.models.targets import class_logits, soft_targets
from trainer.train import checkpoint
from trainer.train.losses import Loss, at_least_loss

HIGHEST, SIZE = 20, 64
TINY = [*QUICK, "--set", "augment.views=1", "--set", f"data.size={SIZE}", "--freeze", "last", "--epochs", 1]
"""Flags of a run that trains only the head on small photos."""


def bell(quantity: int, width: float) -> np.ndarray:
    """Return the expected soft target of the quantities 0, 1, … 20 and more."""
    numbers = np.arange(60)
    weights = np.exp(-((numbers - quantity) ** 2) / (2 * width**2))
    weights /= weights.sum()
    return np.append(weights[: HIGHEST + 1], weights[HIGHEST + 1 :].sum())


@pytest.mark.parametrize(("quantity", "width"), [(0, 0.5), (3, 0.5), (5, 0.5), (6, 0.6), (10, 1.0), (17, 1.7), (20, 2)])
def test_soft_targets_are_wider_beyond_five(quantity: int, width: float) -> None:
    result = soft_targets(torch.tensor([quantity]), 0.5, HIGHEST)[0]
    assert result.numpy() == pytest.approx(bell(quantity, width), abs=1e-6)


def test_quantities_beyond_the_highest_share_the_last_target() -> None:
    near, far = soft_targets(torch.tensor([22, 1000]), 0.5, HIGHEST)
    assert near.numpy() == pytest.approx(bell(22, 2), abs=1e-6)
    assert float(far[-1]) == pytest.approx(1)
    assert soft_targets(torch.tensor([17, 21, 99]), 0, HIGHEST).argmax(dim=1).tolist() == [17, 21, 21]


def test_at_least_labels_accept_all_larger_predictions() -> None:
    probabilities = torch.full((1, 22), 0.5 / 18)
    probabilities[0, [2, 7, 12, 21]] = torch.tensor([0.2, 0.1, 0.15, 0.05])
    logits = probabilities.log().requires_grad_()
    beyond_five = 0.1 + 0.15 + 0.05 + 13 * 0.5 / 18
    loss = Loss(TrainConfig(), highest=HIGHEST)
    result = loss(logits, torch.tensor([~6]))
    assert result.item() == pytest.approx(-math.log(beyond_five), rel=1e-5)
    result.backward()
    right = probabilities[0] * (torch.arange(22) >= 6) / beyond_five
    torch.testing.assert_close(logits.grad, (probabilities[0] - right)[None])
    assert at_least_loss(logits, torch.tensor([50])).item() == pytest.approx(-math.log(0.05), rel=1e-5)


def test_a_step_mixes_exact_and_at_least_labels() -> None:
    logits = torch.linspace(-1, 1, 44).view(2, 22)
    loss = Loss(TrainConfig(), torch.tensor([1.0, 1, 1, 1, 1, 1, 3]), highest=HIGHEST)
    exact = Loss(TrainConfig(), highest=HIGHEST)(logits[:1], torch.tensor([2]))
    at_least = at_least_loss(logits[1:], torch.tensor([6]))
    assert float(loss(logits, torch.tensor([2, ~6]))) == pytest.approx(float(exact + 3 * at_least[0]) / 4)


def test_class_mask_treats_quantities_beyond_five_as_one_class() -> None:
    model = build(ModelConfig(architecture="resnet50v2", weights="none", width=0.125)).eval()
    model.class_mask.restrict_to((1, 2, 3))
    logits, _ = model(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert (logits[0] == MASKED_LOGIT).tolist() == [True, False, False, False, *[True] * 18]
    targets = Loss(TrainConfig(), classes=(4, 5, 6), highest=HIGHEST).targets(torch.tensor([10]))
    assert targets[0].numpy() == pytest.approx(bell(10, 1), abs=1e-4)


def test_class_logits() -> None:
    logits = torch.randn(5, 22, generator=torch.Generator().manual_seed(0))
    result = torch.softmax(class_logits(logits), dim=1).numpy()
    assert result == pytest.approx(class_probabilities(torch.softmax(logits, dim=1).numpy()), abs=1e-6)
    assert torch.equal(class_logits(logits[:, :7]), logits[:, :7])


def test_temperature_is_fitted_to_the_classes() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 22)) * 2
    labels = np.minimum([random.choice(22, p=row) for row in softmax(logits)], 6)
    assert best_temperature(3 * logits, labels) == pytest.approx(3, abs=0.1)
    shift = PriorShift((0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4), tuple(np.bincount(labels, minlength=7).tolist()))
    moved = class_probabilities(softmax(logits, shift=shift.logits(22)))
    ratios = np.array(shift.shares) * len(labels) / np.array(shift.training_photos)
    expected = class_probabilities(softmax(logits)) * ratios
    assert moved == pytest.approx(expected / expected.sum(axis=1, keepdims=True))
    label_probabilities = moved[np.arange(len(labels)), labels]
    assert log_loss(logits, labels, shift=shift) == pytest.approx(
        np.average(-np.log(label_probabilities), weights=shift.weights(labels))
    )


def test_errors_over_all_quantities() -> None:
    """The medians are 2, 8 and "more than 20", which counts as 21; the photos show 2, 11 and 40 items."""
    distribution = np.zeros((3, 22))
    distribution[0, [1, 2, 9]] = 0.3, 0.4, 0.3
    distribution[1, [5, 8, 10]] = 0.4, 0.2, 0.4
    distribution[2, [3, 21]] = 0.2, 0.8
    result = quantity_errors(distribution, np.array([2, 11, 40]), ["a", "b", "c"])
    assert result.photos == 3
    assert result.mae.value == pytest.approx((0 + 3 + 19) / 3)
    assert result.rmse.value == pytest.approx(math.sqrt((0 + 9 + 361) / 3))
    assert result.mae.low == 0
    assert result.mae.high == 19
    seven = quantity_errors(class_probabilities(distribution), np.array([2, 11, 40]), ["a", "b", "c"])
    assert seven.mae.value == pytest.approx((0 + 5 + 34) / 3)
    counts = counts_of(distribution, np.array([2, 6, 6]), ["a", "b", "c"])
    assert counts.predicted.tolist() == [2, 6, 6]
    assert counts.median.tolist() == [2, 6, 6]


LABELS = {
    "6+": (6, True),
    " 9 + ": (9, True),
    ">5": (6, True),
    "more than 5": (6, True),
    "3+": (3, True),
    "12": (12, False),
}


def index_of(data: Data, folder: Path, labels: dict[str, object]) -> DataConfig:
    rows = [(f"{number:05}", labels.get(f"{number:05}", number % 8), f"g{number // 2}") for number in range(160)]
    write_index(folder / "index.csv", rows)
    return DataConfig(photos=data.photos, index=folder / "index.csv")


def test_at_least_labels_are_read(data: Data, tmp_path: Path) -> None:
    config = index_of(data, tmp_path, {f"{number:05}": label for number, label in enumerate(LABELS)})
    result = [(row.quantity, row.at_least) for row in read_index(config)[: len(LABELS)]]
    assert result == list(LABELS.values())
    assert [row.label for row in read_index(config)[: len(LABELS)]] == ["6+", "9+", "6+", "6+", "3+", "12"]


@pytest.mark.parametrize("label", ["+", "six+", "6++", ">", "about 6"])
def test_invalid_at_least_labels_are_refused(
    data: Data, tmp_path: Path, label: str, cli_error: Callable[..., str]
) -> None:
    config = index_of(data, tmp_path, {"00003": label})
    message = cli_error("fit", "--photos", data.photos, "--index", config.index, "--out", tmp_path / "run", *QUICK)
    assert f"line 5: label '{label}' of 00003 is not a whole number, nor one with a + (6+ means six items" in message


def test_photos_without_a_known_class_are_for_training_only(data: Data, tmp_path: Path) -> None:
    splits = load_dataset(index_of(data, tmp_path, {})).splits
    learned, measured = splits[Split.TRAIN].keys[0], splits[Split.TEST].keys[:2]
    config = index_of(data, tmp_path, {learned: "3+", measured[0]: "3+", measured[1]: "6+"})
    result = load_dataset(config)
    assert result[Split.TRAIN].targets[0] == ~3
    assert result[Split.TEST].keys == splits[Split.TEST].keys[1:]
    assert result[Split.TEST].labels[0] == 6
    assert result[Split.TEST].targets[0] == ~6
    assert measured[0] not in load_photos(config)[0].keys


@pytest.mark.parametrize("highest", [5, HIGHEST])
def test_from_photos_to_metrics(data: Data, tmp_path: Path, highest: int) -> None:
    """Uses exact and "at least" labels; quantity errors are measured on exact labels."""
    train = load_dataset(index_of(data, tmp_path, {}))[Split.TRAIN].keys[0]
    test = next(row.key for row in load_dataset(index_of(data, tmp_path, {}))[Split.TEST].rows if row.quantity > 5)
    config = index_of(data, tmp_path, {train: "6+", test: "6+"})
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    flags = ["--photos", data.photos, "--index", config.index]
    run_cli(
        "fit", *flags, "--out", run, *TINY, "--set", f"model.highest={highest}",
    )  # fmt: skip
    saved = checkpoint.load(run / "best.pt")
    assert saved.model().head.classify.out_features == highest + 2
    run_cli("export", run / "best.pt", "--out", bundle, "--variants", "int8,fp32", "--max-loss", 1)
    card = Bundle(bundle).card
    assert card.highest == highest
    result, _ = OnnxModel(Bundle(bundle).model_path(Precision.INT8))(np.zeros((2, SIZE, SIZE, 3), np.uint8))
    assert result.shape == (2, highest + 2)
    photos = card.metrics["test"].photos
    assert card.metrics["test"].quantities is not None
    assert card.metrics["test"].quantities.photos == photos - 1
    assert card.metrics["test 0-5 (challenge)"].quantities is None
    for model in (run / "best.pt", bundle):
        run_cli("evaluate", model, *flags, "--out", tmp_path / "found.json")
        figures = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["metrics"]["test"]
        assert figures["quantities"]["photos"] == photos - 1
        assert figures["quantities"]["mae"]["value"] > 0
        assert "MAE over all quantities" in (tmp_path / "found.html").read_text(encoding="utf-8")


def test_an_old_checkpoint_predicts_the_seven_classes(data: Data, tmp_path: Path) -> None:
    run_cli(
        "fit", *data.flags, "--out", tmp_path, *TINY, "--set", "model.highest=5",
    )  # fmt: skip
    content = torch.load(tmp_path / "best.pt", weights_only=True)
    options = json.loads(content["config"])
    del options["model"]["highest"]
    torch.save(content | {"config": json.dumps(options)}, tmp_path / "old.pt")
    old, new = (checkpoint.load(tmp_path / name) for name in ("old.pt", "best.pt"))
    assert old.config == new.config
    photo = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    assert torch.equal(old.model()(photo)[0], new.model()(photo)[0])
