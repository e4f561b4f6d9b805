"""`tune`: trials, pruning, continuing, and a run with the best options."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest

from tests.trainer.drawn import QUICK, Data, run_cli
from trainer import checkpoint, tune
from trainer.config import Config
from trainer.loop import BEST


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "trials.csv").read_text(encoding="utf-8").splitlines()))


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[float]]]:
    """Trials that do not train: their epochs' validation accuracies are those that the test puts here."""
    planned: list[list[float]] = []
    seen: list[Config] = []

    def fit(config: Config, *_: object, after: Callable[[dict[str, float]], None], **__: object) -> None:
        seen.append(config)
        for epoch, accuracy in enumerate(planned.pop(0), start=1):
            after({"epoch": epoch, "val_accuracy": accuracy})

    monkeypatch.setattr(tune, "fit", fit)
    yield planned
    assert planned == []


def test_a_study_trains_and_its_best_trial_can_be_fitted(data: Data, tmp_path: Path) -> None:
    quick = [*QUICK, "--set", "model.freeze=layer4", "--set", "train.epochs=1"]
    study = tmp_path / "study"
    run_cli("tune", *data.flags, "--out", study, *quick, "--trials", 2)
    assert [row["state"] for row in rows(study)] == ["complete", "complete"]
    assert not list(study.rglob("last.pt"))
    run_cli("fit", "--from-study", study, "--out", tmp_path / "run")
    best, own = (
        checkpoint.load(study / f"trial-{tune.best_trial(study).number}" / BEST),
        checkpoint.load(tmp_path / "run" / BEST),
    )
    assert own.config == best.config
    assert own.history[0]["train_loss"] == pytest.approx(best.history[0]["train_loss"])


def test_a_study_continues(data: Data, tmp_path: Path, scores: list[list[float]]) -> None:
    scores += [[0.3, 0.5], [0.4, 0.2], [0.6, 0.1]]
    run_cli("tune", *data.flags, "--out", tmp_path, "--trials", 2)
    run_cli("tune", *data.flags, "--out", tmp_path, "--trials", 3)
    run_cli("tune", *data.flags, "--out", tmp_path, "--trials", 3)  # enough
    assert [row["val_accuracy"] for row in rows(tmp_path)] == ["0.5", "0.4", "0.6"]
    assert tune.best_trial(tmp_path).number == 2
    assert (tmp_path / "trials.png").read_bytes().startswith(b"\x89PNG")


def test_hopeless_trials_are_pruned(data: Data, tmp_path: Path, scores: list[list[float]]) -> None:
    scores += [[0.5] * 5] * 5 + [[0.1] * 5]
    run_cli("tune", *data.flags, "--out", tmp_path, "--trials", 6)
    assert [row["state"] for row in rows(tmp_path)] == ["complete"] * 5 + ["pruned"]
    assert int(rows(tmp_path)[-1]["epochs"]) == 2


def test_the_spaces_give_options_that_exist(data: Data, tmp_path: Path) -> None:
    fixed = {"learning_rate": 0.002, "batch_size": 32, "epochs": 10, "pretrained_factor": 0.1, "weight_decay": 0.1}
    fixed |= {"ordinal_sigma": 0.5, "class_weights": "sqrt", "dropout": 0.1}
    places = {"data.photos": data.photos, "data.index": data.index}
    for space in tune.SPACES.values():
        assert tune.read(None, places | space(optuna.trial.FixedTrial(fixed)))  # type: ignore[arg-type]


def test_errors(data: Data, tmp_path: Path, cli_error: Callable[..., str], scores: list[list[float]]) -> None:
    assert "--preset own: choose from default, capstone" in cli_error("tune", "--out", tmp_path, "--preset", "own")
    assert "data: Field required" in cli_error("tune", "--out", tmp_path)
    assert "holds no study; run: python -m trainer tune" in cli_error(
        "fit", "--out", tmp_path / "run", "--from-study", tmp_path / "none"
    )
    scores.append([0.1])
    run_cli("tune", *data.flags, "--out", tmp_path / "study", "--trials", 1)
    message = cli_error("tune", *data.flags, "--out", tmp_path / "study", "--preset", "capstone")
    assert "is a study of the preset 'default'; choose it or another --out" in message
