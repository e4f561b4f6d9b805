"""The command `tune`: a hyperparameter search by Optuna. Each finished trial is stored, so a study can be continued."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, Trial, TrialState

from binwatch.cores import usable_cores
from binwatch.records.engine import sqlite_url
from binwatch.text import count_noun
from trainer.config import Config, read_config
from trainer.data.dataset import find_photos
from trainer.disk import exclusive_lock, write_csv, write_png
from trainer.display import Display, silent_display
from trainer.errors import ConfigError, DivergedError, TuneError
from trainer.train.fit import fit
from trainer.train.run_files import FEATURES_FOLDER, LAST_CHECKPOINT, STUDY_FILE, check_study

STUDY_NAME = "binwatch"
CONFIG_ATTR = "config"
"""Attribute of a trial: its whole configuration, as JSON."""
DATA_ATTR, OPTIONS_ATTR = "data", "options"
"""Attributes of a study: digests of its photos and labels, and the options that all trials have in common."""
IGNORED_OPTIONS: Any = {"data": {"photos", "index"}, "train": {"device", "threads", "readers", "tensorboard"}}
"""Options that may change during a study: they do not affect accuracy. Photos and index may move, but not change."""
FINISHED_STATES = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of the trials that count towards the number of trials."""

Space = Callable[[Trial], dict[str, Any]]
"""Returns the options of a trial."""


def default_space(trial: Trial) -> dict[str, Any]:
    """The options that matter most when a pretrained network is fine-tuned, around their defaults."""
    return {
        "train.learning_rate": trial.suggest_float("learning_rate", 1e-4, 5e-3, log=True),
        "train.pretrained_factor": trial.suggest_float("pretrained_factor", 0.05, 1.0, log=True),
        "train.weight_decay": trial.suggest_float("weight_decay", 1e-3, 0.2, log=True),
        "train.ordinal_sigma": trial.suggest_float("ordinal_sigma", 0.0, 1.0),
        "train.class_weights": trial.suggest_categorical("class_weights", ["none", "sqrt"]),
        "model.dropout": trial.suggest_float("dropout", 0.0, 0.6),
    }


def capstone_space(trial: Trial) -> dict[str, Any]:
    """The search space of the capstone projects, with Adam, hard targets, and the head of these projects."""
    return {
        "train.learning_rate": trial.suggest_float("learning_rate", 0.001, 0.1, log=True),
        "train.batch_size": trial.suggest_categorical("batch_size", [32, 64]),
        "train.epochs": trial.suggest_int("epochs", 10, 20),
        "train.optimiser": "adam",
        "train.loss": "cross_entropy",
        "model.head": "capstone",
    }


SPACES: dict[str, Space] = {"default": default_space, "capstone": capstone_space}


@dataclass(frozen=True)
class Tuning:
    """A study in `folder` with a total of `trials`. Its options are those of `config`, overridden by `changes`."""

    folder: Path
    space: str
    trials: int
    config: Path | None
    changes: dict[str, Any]
    jobs: int = 1


def tune(tuning: Tuning, display: Display) -> FrozenTrial:
    """Run trials until there are `tuning.trials`, including those of earlier runs. Return the best one.

    A trial that was killed in an earlier run is repeated. Raises TuneError if a trial is killed in this run.
    """
    config = read_config(tuning.config, tuning.changes)  # report mistakes before the first trial
    # Only one command runs at a time, so a trial that is RUNNING at the start was killed.
    with exclusive_lock(tuning.folder, "another tune is running here; wait for it, or use its --jobs"):
        study = _open_study(tuning.folder, create=True)
        space = study.user_attrs.get("space", tuning.space)
        if space != tuning.space:
            raise ConfigError(f"{tuning.folder}: is a study of the preset {space!r}; choose it or another --out")
        _check_comparable(study, tuning.folder, config)
        study.set_user_attr("space", tuning.space)
        _requeue_killed_trials(study, tuning.folder, display)
        missing = tuning.trials - len(study.get_trials(states=FINISHED_STATES))
        run = _run_in_parallel if tuning.jobs > 1 and missing > 1 else _run_sequentially
        for _ in run(tuning, missing, display):
            write_results(tuning.folder, study.get_trials())
    return best_trial(tuning.folder)


def best_trial(folder: Path) -> FrozenTrial:
    """Return the trial with the best validation accuracy. Raises ConfigError if there is none."""
    try:
        return _open_study(folder, create=False).best_trial
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{folder}: holds no finished trial; run: python -m trainer tune") from error


def best_options(folder: Path) -> dict[str, Any]:
    """Return all options of the best trial ("train.learning_rate" → …), for `fit --from-study`."""
    sections: dict[str, dict[str, Any]] = json.loads(best_trial(folder).user_attrs[CONFIG_ATTR])
    return {f"{section}.{name}": value for section, table in sections.items() for name, value in table.items()}


def write_results(folder: Path, trials: list[FrozenTrial]) -> None:
    """Write `trials.csv` and `trials.png`."""
    names = sorted({name for trial in trials for name in trial.params})
    rows: list[list[object]] = [["trial", "state", "val_accuracy", "epochs", *names]]
    for trial in trials:
        accuracies = trial.intermediate_values
        best = _best_accuracy(trial) if accuracies else ""
        rows.append([trial.number, trial.state.name.lower(), best, len(accuracies), *map(trial.params.get, names)])
    write_csv(folder / "trials.csv", rows)
    _plot_trials(folder / "trials.png", trials, names)


def _check_comparable(study: optuna.Study, folder: Path, config: Config) -> None:
    """Raise ConfigError if photos, labels or options differ from those of the study's earlier trials."""
    photos, _ = find_photos(config.data)
    labels_digest = hashlib.sha256(repr(photos.rows).encode()).hexdigest()
    current = {
        DATA_ATTR: [photos.digest(), labels_digest],
        OPTIONS_ATTR: json.loads(config.model_dump_json(exclude=IGNORED_OPTIONS)),
    }
    stored = {name: study.user_attrs.get(name, value) for name, value in current.items()}
    if stored[DATA_ATTR] != current[DATA_ATTR]:
        raise ConfigError(
            f"{folder}: the photos in {config.data.photos} or the labels in {config.data.labels} have changed since the"
            " study began, so accuracies could not be compared; restore them, or choose another --out"
        )
    changed = [
        f"{section}.{name} was {stored[OPTIONS_ATTR].get(section, {}).get(name)!r} and is {value!r}"
        for section, table in current[OPTIONS_ATTR].items()
        for name, value in table.items()
        if stored[OPTIONS_ATTR].get(section, {}).get(name) != value
    ]
    if changed:
        raise ConfigError(f"{folder}: is a study with other options ({'; '.join(changed)}); choose another --out")
    for name, value in current.items():
        study.set_user_attr(name, value)


def _requeue_killed_trials(study: optuna.Study, folder: Path, display: Display) -> None:
    """Mark trials that were killed as failed, delete their files, and enqueue their options as the next trials."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
        shutil.rmtree(_trial_folder(folder, trial.number), ignore_errors=True)
        display.say(f"trial {trial.number} was interrupted; its options are tried again")


def _run_sequentially(tuning: Tuning, trials: int, display: Display) -> Iterator[None]:
    for _ in range(trials):
        _run_trial(tuning, display)
        yield


def _run_in_parallel(tuning: Tuning, trials: int, display: Display) -> Iterator[None]:
    """Run trials in processes that share the cores, without progress bars, which would overwrite each other."""
    display.say(
        f"{count_noun(trials, 'trial')}, {tuning.jobs} at a time; {tuning.folder}/trial-N/epochs.csv shows how far"
        " each is"
    )
    threads = max(usable_cores() // tuning.jobs, 1)
    pool = ProcessPoolExecutor(
        tuning.jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    )
    try:
        for future in as_completed([pool.submit(_run_trial, tuning) for _ in range(trials)]):
            trial = future.result()
            display.say(
                f"{_describe(trial)}: {trial.state.name.lower()}, validation accuracy {_best_accuracy(trial):.1%}"
            )
            yield
    except BrokenProcessPool as error:
        raise TuneError(
            f"{tuning.folder}: a trial's process was killed, possibly for lack of memory (then use fewer --jobs);"
            " the same command continues"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _run_trial(tuning: Tuning, display: Display | None = None) -> FrozenTrial:
    """Run one trial in this process."""
    finished: list[FrozenTrial] = []
    study = _open_study(tuning.folder, create=False)
    study.optimize(
        lambda trial: _train_trial(trial, tuning, display or silent_display()),
        n_trials=1,
        callbacks=[lambda _, trial: finished.append(trial)],
    )
    return finished[0]


def _best_accuracy(trial: FrozenTrial) -> float:
    return max(trial.intermediate_values.values(), default=0.0)


def _trial_folder(study: Path, trial: int) -> Path:
    return study / f"trial-{trial}"


def _train_trial(trial: Trial, tuning: Tuning, display: Display) -> float:
    """Train with the options of a trial. Return the best validation accuracy. All trials share stored features."""
    config = read_config(tuning.config, tuning.changes | SPACES[tuning.space](trial))
    trial.set_user_attr(CONFIG_ATTR, config.model_dump_json())
    folder = _trial_folder(tuning.folder, trial.number)
    best = 0.0

    def on_epoch_end(row: dict[str, float]) -> None:
        nonlocal best
        best = max(best, row["val_accuracy"])
        trial.report(best, int(row["epoch"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    display.say(_describe(trial))
    try:
        fit(config, folder, display, cache=tuning.folder / FEATURES_FOLDER, on_epoch_end=on_epoch_end)
    except DivergedError as error:
        display.say(str(error))
        raise optuna.TrialPruned from error  # for example by a high learning rate: a result, not a failure
    finally:
        (folder / LAST_CHECKPOINT).unlink(missing_ok=True)  # it is as large as three models
    return best


def _describe(trial: Trial | FrozenTrial) -> str:
    options = ", ".join(f"{name} {_format_value(value)}" for name, value in trial.params.items())
    return f"trial {trial.number} ({options})"


def _format_value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _open_study(folder: Path, *, create: bool) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = folder / STUDY_FILE
    if not create:
        check_study(folder)
    storage = sqlite_url(file.resolve()).replace("{", "{{").replace("}", "}}")  # Optuna formats it
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    if not create:
        return optuna.load_study(study_name=STUDY_NAME, storage=storage, pruner=pruner)
    return optuna.create_study(
        study_name=STUDY_NAME, storage=storage, direction="maximize", load_if_exists=True, pruner=pruner
    )


def _plot_trials(file: Path, trials: list[FrozenTrial], names: list[str]) -> None:
    """Plot the accuracy of each trial by its number, and by the value of each option."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * (len(names) + 1), 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names) + 1, squeeze=False)[0], ["trial", *names], strict=True):
        for state, marker in ((TrialState.COMPLETE, "o"), (TrialState.PRUNED, "x")):
            shown = [trial for trial in trials if trial.state is state and trial.intermediate_values]
            values = [trial.number if name == "trial" else str(trial.params.get(name)) for trial in shown]
            if values and all(isinstance(trial.params.get(name), float) for trial in shown):
                values = [trial.params[name] for trial in shown]
            axes.plot(values, [_best_accuracy(trial) for trial in shown], marker, label=state.name.lower())
        axes.set(xlabel=name, ylabel="validation accuracy")
    write_png(file, figure)
