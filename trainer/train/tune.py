"""`tune`: a search for the best options, by Optuna. Each finished trial is stored, so a study can be continued."""

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

from binwatch.cores import cores
from binwatch.records.engine import sqlite_url
from binwatch.text import many
from trainer.config import Config, read_config
from trainer.data.dataset import present_photos
from trainer.disk import exclusive_lock, write_csv, write_png
from trainer.display import Display, silent_display
from trainer.errors import ConfigError, DivergedError, TuneError
from trainer.train.fit import fit
from trainer.train.run_files import FEATURES, LAST, STUDY, check_study

NAME = "binwatch"
CONFIG = "config"
DATA, OPTIONS = "data", "options"
"""Attributes of a study: digests of its photos and labels, and the options that are the same for all trials."""
FREE: Any = {"data": {"photos", "index"}, "train": {"device", "threads", "readers", "tensorboard"}}
"""Options that may differ between trials: they do not affect a trial's accuracy."""
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)

Space = Callable[[Trial], dict[str, Any]]


def default_space(trial: Trial) -> dict[str, Any]:
    """The options with the largest effect on the fine-tuning of a pretrained network, around their defaults."""
    return {
        "train.learning_rate": trial.suggest_float("learning_rate", 1e-4, 5e-3, log=True),
        "train.pretrained_factor": trial.suggest_float("pretrained_factor", 0.05, 1.0, log=True),
        "train.weight_decay": trial.suggest_float("weight_decay", 1e-3, 0.2, log=True),
        "train.ordinal_sigma": trial.suggest_float("ordinal_sigma", 0.0, 1.0),
        "train.class_weights": trial.suggest_categorical("class_weights", ["none", "sqrt"]),
        "model.dropout": trial.suggest_float("dropout", 0.0, 0.6),
    }


def capstone_space(trial: Trial) -> dict[str, Any]:
    """The search space of the capstone projects, with Adam, labels as targets, and the head of these projects."""
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
    """A study in `folder` with a total of `trials`. Its options are those of the file `config` with `changes`."""

    folder: Path
    space: str
    trials: int
    config: Path | None
    changes: dict[str, Any]
    jobs: int = 1


def tune(tuning: Tuning, display: Display) -> FrozenTrial:
    """Run trials until there are `tuning.trials`, including those of earlier runs; returns the best one.

    A trial that was killed in an earlier run is repeated. Raises TuneError if one is killed in this run.
    """
    config = read_config(tuning.config, tuning.changes)  # now, so that a mistake is reported before the first trial
    # One command at a time: only then is a trial that is under way at the start one that was killed.
    with exclusive_lock(tuning.folder, "another tune is running here; wait for it, or use its --jobs"):
        study = _open(tuning.folder, create=True)
        space = study.user_attrs.get("space", tuning.space)
        if space != tuning.space:
            raise ConfigError(f"{tuning.folder}: is a study of the preset {space!r}; choose it or another --out")
        _check_comparable(study, tuning.folder, config)
        study.set_user_attr("space", tuning.space)
        _requeue_killed(study, tuning.folder, display)
        missing = tuning.trials - len(study.get_trials(states=COUNTED))
        run = _spread if tuning.jobs > 1 and missing > 1 else _in_turn
        for _ in run(tuning, missing, display):
            write_results(tuning.folder, study.get_trials())
    return best_trial(tuning.folder)


def best_trial(folder: Path) -> FrozenTrial:
    """The trial with the best validation accuracy. Raises ConfigError if there is none."""
    try:
        return _open(folder, create=False).best_trial
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{folder}: holds no finished trial; run: python -m trainer tune") from error


def best_changes(folder: Path) -> dict[str, Any]:
    """Every option of the best trial ("train.learning_rate" → …), for `fit --from-study`."""
    sections: dict[str, dict[str, Any]] = json.loads(best_trial(folder).user_attrs[CONFIG])
    return {f"{section}.{name}": value for section, found in sections.items() for name, value in found.items()}


def write_results(folder: Path, trials: list[FrozenTrial]) -> None:
    """`trials.csv` and `trials.png`."""
    names = sorted({name for trial in trials for name in trial.params})
    rows: list[list[object]] = [["trial", "state", "val_accuracy", "epochs", *names]]
    for trial in trials:
        seen = trial.intermediate_values
        score = _best_of(trial) if seen else ""
        rows.append([trial.number, trial.state.name.lower(), score, len(seen), *map(trial.params.get, names)])
    write_csv(folder / "trials.csv", rows)
    _plot(folder / "trials.png", trials, names)


def _check_comparable(study: optuna.Study, folder: Path, config: Config) -> None:
    """Raises ConfigError if photos, labels or options are not those of the study's earlier trials."""
    photos, _ = present_photos(config.data)
    rows = hashlib.sha256(repr(photos.rows).encode()).hexdigest()
    now = {DATA: [photos.digest(), rows], OPTIONS: json.loads(config.model_dump_json(exclude=FREE))}
    before = {name: study.user_attrs.get(name, value) for name, value in now.items()}
    if before[DATA] != now[DATA]:
        raise ConfigError(
            f"{folder}: the photos in {config.data.photos} or the labels in {config.data.labels} have changed since the"
            " study began, so accuracies could not be compared; restore them, or choose another --out"
        )
    changed = [
        f"{section}.{name} was {before[OPTIONS].get(section, {}).get(name)!r} and is {value!r}"
        for section, table in now[OPTIONS].items()
        for name, value in table.items()
        if before[OPTIONS].get(section, {}).get(name) != value
    ]
    if changed:
        raise ConfigError(f"{folder}: is a study with other options ({'; '.join(changed)}); choose another --out")
    for name, value in now.items():
        study.set_user_attr(name, value)


def _requeue_killed(study: optuna.Study, folder: Path, display: Display) -> None:
    """Mark trials that were killed as failed, delete their files, and enqueue their options as the next trials."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
        shutil.rmtree(_folder(folder, trial.number), ignore_errors=True)
        display.say(f"trial {trial.number} was interrupted; its options are tried again")


def _in_turn(tuning: Tuning, trials: int, display: Display) -> Iterator[None]:
    for _ in range(trials):
        _one(tuning, display)
        yield


def _spread(tuning: Tuning, trials: int, display: Display) -> Iterator[None]:
    """Run trials in their own processes, which share the cores. Progress bars would overwrite each other."""
    display.say(
        f"{many(trials, 'trial')}, {tuning.jobs} at a time; {tuning.folder}/trial-N/epochs.csv shows how far each is"
    )
    threads = max(cores() // tuning.jobs, 1)
    pool = ProcessPoolExecutor(
        tuning.jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(threads,)
    )
    try:
        for done in as_completed([pool.submit(_one, tuning) for _ in range(trials)]):
            trial = done.result()
            display.say(f"{_named(trial)}: {trial.state.name.lower()}, validation accuracy {_best_of(trial):.1%}")
            yield
    except BrokenProcessPool as error:
        raise TuneError(
            f"{tuning.folder}: a trial's process was killed, possibly for lack of memory (then use fewer --jobs);"
            " the same command continues"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _one(tuning: Tuning, display: Display | None = None) -> FrozenTrial:
    """Run one trial in this process."""
    ended: list[FrozenTrial] = []
    study = _open(tuning.folder, create=False)
    study.optimize(
        lambda trial: _trial(trial, tuning, display or silent_display()),
        n_trials=1,
        callbacks=[lambda _, trial: ended.append(trial)],
    )
    return ended[0]


def _best_of(trial: FrozenTrial) -> float:
    return max(trial.intermediate_values.values(), default=0.0)


def _folder(study: Path, trial: int) -> Path:
    return study / f"trial-{trial}"


def _trial(trial: Trial, tuning: Tuning, display: Display) -> float:
    """Train with the options of a trial; returns the best validation accuracy. All trials share features on disk."""
    config = read_config(tuning.config, tuning.changes | SPACES[tuning.space](trial))
    trial.set_user_attr(CONFIG, config.model_dump_json())
    folder = _folder(tuning.folder, trial.number)
    best = 0.0

    def after(row: dict[str, float]) -> None:
        nonlocal best
        best = max(best, row["val_accuracy"])
        trial.report(best, int(row["epoch"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    display.say(_named(trial))
    try:
        fit(config, folder, display, cache=tuning.folder / FEATURES, after=after)
    except DivergedError as error:
        display.say(str(error))
        raise optuna.TrialPruned from error  # such as too high a learning rate: a result, not a failure
    finally:
        (folder / LAST).unlink(missing_ok=True)  # with the optimiser's state, as large as three models
    return best


def _named(trial: Trial | FrozenTrial) -> str:
    options = ", ".join(f"{name} {_short(value)}" for name, value in trial.params.items())
    return f"trial {trial.number} ({options})"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _open(folder: Path, *, create: bool) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = folder / STUDY
    if not create:
        check_study(folder)
    storage = sqlite_url(file.resolve()).replace("{", "{{").replace("}", "}}")  # Optuna formats it
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    if not create:
        return optuna.load_study(study_name=NAME, storage=storage, pruner=pruner)
    return optuna.create_study(
        study_name=NAME, storage=storage, direction="maximize", load_if_exists=True, pruner=pruner
    )


def _plot(file: Path, trials: list[FrozenTrial], names: list[str]) -> None:
    """Draw each trial's score by its number, and by the value of each option."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * (len(names) + 1), 3.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names) + 1, squeeze=False)[0], ["trial", *names], strict=True):
        for state, marker in ((TrialState.COMPLETE, "o"), (TrialState.PRUNED, "x")):
            chosen = [each for each in trials if each.state is state and each.intermediate_values]
            values = [each.number if name == "trial" else str(each.params.get(name)) for each in chosen]
            if values and all(isinstance(each.params.get(name), float) for each in chosen):
                values = [each.params[name] for each in chosen]
            scores = [_best_of(each) for each in chosen]
            axes.plot(values, scores, marker, label=state.name.lower())
        axes.set(xlabel=name, ylabel="validation accuracy")
    write_png(file, figure)
