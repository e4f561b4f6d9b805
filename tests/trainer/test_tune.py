"""The command `tune`: trials, pruning, continuing a study, and a run with the best options."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest

from tests.trainer.drawn import QUICK, Data, run_cli
from trainer import disk
from trainer.config import Config
from trainer.errors import DivergedError
from trainer.train import checkpoint, tune
from trainer.train.run_files import BEST_CHECKPOINT, STUDY_FILE


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "trials.csv").read_text(encoding="utf-8").splitlines()))


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[float]]]:
    """Replace training: epochs of trials have the validation accuracies that the test appends to this list."""
    planned: list[list[float]] = []
    configs: list[Config] = []

    def fit(config: Config, *_: object, on_epoch_end: Callable[[dict[str, float]], None], **__: object) -> None:
        configs.append(config)
        for epoch, accuracy in enumerate(planned.pop(0), start=1):
            on_epoch_end({"epoch": epoch, "val_accuracy": accuracy})

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
        checkpoint.load(study / f"trial-{tune.best_trial(study).number}" / BEST_CHECKPOINT),
        checkpoint.load(tmp_path / "run" / BEST_CHECKPOINT),
    )
    assert own.config == best.config
    assert own.history[0]["train_loss"] == pytest.approx(best.history[0]["train_loss"])


def test_a_study_in_a_folder_with_special_characters(data: Data, tmp_path: Path, scores: list[list[float]]) -> None:
    scores += [[0.5]]
    study = tmp_path / "what?now {1} 100%41"
    run_cli("tune", *data.flags, "--out", study, "--trials", 1)
    assert (study / STUDY_FILE).stat().st_size > 0
    assert tune.best_trial(study).number == 0
    assert not (tmp_path / "what").exists()


def test_a_study_continues(data: Data, tmp_path: Path, scores: list[list[float]]) -> None:
    scores += [[0.3, 0.5], [0.4, 0.2], [0.6, 0.1]]
    run_cli("tune", *data.flags, "--out", tmp_path, "--trials", 2)
    run_cli("tune", *data.flags, "--out", tmp_path, "--trials", 3)
    run_cli("tune", *data.flags, "--out", tmp_path, "--trials", 3)  # enough
    assert [row["val_accuracy"] for row in rows(tmp_path)] == ["0.5", "0.4", "0.6"]
    assert tune.best_trial(tmp_path).number == 2
    assert (tmp_path / "trials.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_is_not_continued_with_other_data_or_options(
    data: Data, tmp_path: Path, scores: list[list[float]], cli_error: Callable[..., str]
) -> None:
    """The trials of a study must be comparable."""
    index = tmp_path / "index.csv"
    index.write_bytes(data.index.read_bytes())
    flags, study = ["--photos", data.photos, "--index", index], tmp_path / "study"
    scores += [[0.3], [0.5]]
    run_cli("tune", *flags, "--out", study, "--trials", 1, "--set", "train.epochs=3")
    message = cli_error("tune", *flags, "--out", study, "--trials", 2, "--set", "train.epochs=4")
    assert "is a study with other options (train.epochs was 3 and is 4); choose another --out" in message
    continued = [*flags, "--out", study, "--set", "train.epochs=3"]
    text = index.read_text(encoding="utf-8")
    index.write_text(text.replace("00000,0,", "00000,1,"), encoding="utf-8")
    assert "have changed since the study began" in cli_error("tune", *continued, "--trials", 2)
    index.write_text(text, encoding="utf-8")
    moved = index.rename(tmp_path / "moved.csv")  # the same data at another path with more threads is the same study
    run_cli(
        "tune", "--photos", data.photos, "--index", moved, "--out", study, "--set", "train.epochs=3",
        "--set", "train.readers=2", "--trials", 2,
    )  # fmt: skip
    assert [row["val_accuracy"] for row in rows(study)] == ["0.3", "0.5"]


def test_best_options_include_the_configuration_file(
    data: Data, tmp_path: Path, scores: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fit --from-study` needs no --config."""
    file = tmp_path / "run.toml"
    file.write_text(f'data = {{ photos = "{data.photos}", index = "{data.index}" }}\n[model]\nfreeze = "layer4"\n')
    scores.append([0.3])
    run_cli("tune", "--config", file, "--out", tmp_path / "study", "--trials", 1)
    fitted: list[Config] = []
    monkeypatch.setattr("trainer.train.fit.fit", lambda config, *_, **__: fitted.append(config))
    run_cli("fit", "--from-study", tmp_path / "study", "--out", tmp_path / "run", "--set", "train.seed=3")
    assert (fitted[0].model.freeze, fitted[0].data.photos, fitted[0].train.seed) == ("layer4", data.photos, 3)


def test_a_diverged_trial_is_pruned(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(*_: object, on_epoch_end: Callable[[dict[str, float]], None], **__: object) -> None:
        on_epoch_end({"epoch": 1, "val_accuracy": 0.3})
        if len(diverged) == 0:
            diverged.append(True)
            raise DivergedError("epoch 2: the loss is no longer a number")

    diverged: list[bool] = []
    monkeypatch.setattr(tune, "fit", fit)
    run_cli("tune", *data.flags, "--out", tmp_path, "--trials", 2)
    assert [row["state"] for row in rows(tmp_path)] == ["pruned", "complete"]
    assert "epoch 2: the loss is no longer a number" in capsys.readouterr().err


def test_poor_trials_are_pruned(data: Data, tmp_path: Path, scores: list[list[float]]) -> None:
    scores += [[0.5] * 5] * 5 + [[0.1] * 5]
    run_cli("tune", *data.flags, "--out", tmp_path, "--trials", 6)
    assert [row["state"] for row in rows(tmp_path)] == ["complete"] * 5 + ["pruned"]
    assert int(rows(tmp_path)[-1]["epochs"]) == 2


def test_a_killed_trial_is_repeated(
    data: Data, tmp_path: Path, scores: list[list[float]], capsys: pytest.CaptureFixture[str]
) -> None:
    killed = tune._open_study(tmp_path, create=True).ask()
    options = tune.default_space(killed)
    (tmp_path / "trial-0").mkdir()
    (tmp_path / "trial-0" / "last.pt").write_bytes(b"half a run")
    scores += [[0.3], [0.4]]
    run_cli("tune", *data.flags, "--out", tmp_path, "--trials", 2)
    assert "trial 0 was interrupted; its options are tried again" in capsys.readouterr().err
    assert [row["state"] for row in rows(tmp_path)] == ["fail", "complete", "complete"]
    repeated, other = (tune._open_study(tmp_path, create=False).get_trials()[number].params for number in (1, 2))
    assert repeated == killed.params
    assert repeated["learning_rate"] == options["train.learning_rate"] != other["learning_rate"]
    assert not (tmp_path / "trial-0").exists()


@pytest.mark.timeout(600)
def test_a_trial_of_a_killed_process_is_repeated(
    data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two processes is killed during its trial: its options are tried again, and no other trial is repeated."""
    study = tmp_path / "study"
    options = [*data.flags, "--out", str(study), *QUICK, "--set", "model.freeze=layer4", "--trials", "3", "--jobs", "2"]
    options += ["--set", "train.epochs=30"]  # no trial ends before the kill
    command = [sys.executable, "-m", "trainer", "tune", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        try:
            wait(lambda: len(list(study.glob("trial-*/epochs.csv"))) == 2 or running.poll() is not None)
            os.kill(workers(running.pid)[0], signal.SIGKILL)
            message = running.stderr.read().strip().splitlines()[-1]
        finally:
            running.kill()
    assert running.returncode == 1
    assert message == (
        f"error: {study}: a trial's process was killed, possibly for lack of memory (then use fewer --jobs);"
        " the same command continues"
    )

    run_cli("tune", *options)
    output = capsys.readouterr().err
    assert "trial 0 was interrupted; its options are tried again" in output
    assert "trial 1 was interrupted; its options are tried again" in output
    result = rows(study)
    assert Counter(row["state"] for row in result) == {"fail": 2, "complete": 3}
    assert (study / "trials.png").read_bytes().startswith(b"\x89PNG")
    complete = {row["learning_rate"] for row in result if row["state"] == "complete"}
    assert len(complete) == 3
    assert {row["learning_rate"] for row in result if row["state"] == "fail"} < complete
    assert {file.parent.name for file in study.glob(f"trial-*/{BEST_CHECKPOINT}")} == {"trial-2", "trial-3", "trial-4"}
    assert not list(study.rglob("last.pt"))


def workers(process: int) -> list[int]:
    """Return the ids of the worker processes of `process`."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def wait(condition: Callable[[], bool], seconds: float = 240) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)  # polling interval


def test_one_study_at_a_time(data: Data, tmp_path: Path, cli_error: Callable[..., str]) -> None:
    with disk.exclusive_lock(tmp_path, "not this one"):
        message = cli_error("tune", *data.flags, "--out", tmp_path, "--trials", 1)
    assert "another tune is running here; wait for it, or use its --jobs" in message


def test_search_spaces_give_valid_options(data: Data, tmp_path: Path) -> None:
    fixed = {"learning_rate": 0.002, "batch_size": 32, "epochs": 10, "pretrained_factor": 0.1, "weight_decay": 0.1}
    fixed |= {"ordinal_sigma": 0.5, "class_weights": "sqrt", "dropout": 0.1}
    places = {"data.photos": data.photos, "data.index": data.index}
    for space in tune.SPACES.values():
        assert tune.read_config(None, places | space(optuna.trial.FixedTrial(fixed)))  # type: ignore[arg-type]


def test_errors(data: Data, tmp_path: Path, cli_error: Callable[..., str], scores: list[list[float]]) -> None:
    assert "--preset own: choose from default, capstone" in cli_error(
        "tune", *data.flags, "--out", tmp_path, "--preset", "own"
    )
    assert "data.photos: Field required" in cli_error("tune", "--out", tmp_path)
    assert "has no study; run: python -m trainer tune" in cli_error(
        "fit", "--out", tmp_path / "run", "--from-study", tmp_path / "none"
    )
    scores.append([0.1])
    run_cli("tune", *data.flags, "--out", tmp_path / "study", "--trials", 1)
    message = cli_error("tune", *data.flags, "--out", tmp_path / "study", "--preset", "capstone")
    assert "is a study of the preset 'default'; choose it or another --out" in message
