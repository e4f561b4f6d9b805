"""`pipeline`: prepare → fit → evaluate → export → compare and promote. Resumes an interrupted run at the same step."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from binwatch.bundle import Precision
from binwatch.image import INPUT_SIZE
from binwatch.registry import Registry
from binwatch.settings import Settings
from trainer.config import (
    AugmentConfig,
    ClassShares,
    Config,
    DataConfig,
    ModelConfig,
    Section,
    TrainConfig,
    first_mistake,
    read_toml,
)
from trainer.data.source import prepared_jpeg_quality
from trainer.data.split import Split
from trainer.disk import exclusive_lock, make_folder, write_json
from trainer.display import Display
from trainer.errors import ConfigError, PromotionError
from trainer.evaluation import report
from trainer.evaluation.evaluate import evaluate
from trainer.export.bundle import ExportOptions, export
from trainer.prepare.config import PrepareConfig
from trainer.prepare.outputs import MANIFEST
from trainer.prepare.photo_store import PHOTOS
from trainer.prepare.run import open_inputs, prepare
from trainer.publish.promote import promote
from trainer.train.fit import fit, load_run
from trainer.train.run_files import BEST_CHECKPOINT, FEATURES_FOLDER, LAST_CHECKPOINT

STATE_FILE = "pipeline.json"
DATA, RUNS, BUNDLE = "data", "runs", "bundle"


class ExportConfig(Section):
    """The table [export]: the variants, and the share of accuracy that each may lose."""

    variants: tuple[Precision, ...] = (Precision.FP32, Precision.INT8)
    max_loss: float = 0.005


class SplitConfig(Section):
    """The table [data]: the options that `prepare` does not determine."""

    size: int = INPUT_SIZE
    split_seed: int = 0
    split_column: str = ""
    class_shares: ClassShares = ()


class PipelineConfig(Section):
    """The TOML file that configures all steps."""

    prepare: PrepareConfig
    data: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()


@dataclass(frozen=True)
class PipelineOutcome:
    """The result of a pipeline run."""

    version: str | None
    """The new model's version; None if photos, labels and options have not changed since the last run."""
    promoted: bool
    reason: str


class PipelineRun:
    """One run of all steps, in its own folder. `pipeline.json` records the finished steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / STATE_FILE
        self.state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def record(self, **facts: Any) -> None:
        """Add facts to the state, and write it to the disk."""
        self.state |= facts
        make_folder(self.folder)
        write_json(self.folder / STATE_FILE, self.state)

    def run_once(self, step: str, work: Callable[[], object], display: Display) -> None:
        """Run a step unless it is finished."""
        if step in self.state.get("done", []):
            display.say(f"{step}: done before")
            return
        display.say(f"{step} …")
        work()
        self.record(done=[*self.state.get("done", []), step])


class Pipeline:
    """All steps in the folder `work`, which has the photos in `data` and a folder for each run in `runs`."""

    def __init__(
        self, work: Path, config: PipelineConfig, settings: Settings, registry: Registry, display: Display
    ) -> None:
        self._work = work
        self._config = config
        self._settings = settings
        self._registry = registry
        self._display = display

    def run(self, *, force_new: bool = False) -> PipelineOutcome:
        """Continue an interrupted run, or start a new one if photos, labels or options have changed.

        With `force_new`, always start a new run. Raises ConfigError if another pipeline is running in the same folder.
        """
        # A run may take longer than cron's interval, and must not overlap with the next one.
        with exclusive_lock(self._work, "another pipeline is running here; wait for it"):
            folders = sorted(file.parent for file in (self._work / RUNS).glob(f"*/{STATE_FILE}"))
            last = PipelineRun(folders[-1]) if folders else None
            if last and "outcome" not in last.state and not force_new:
                self._display.say(f"continuing {last.folder.name}")
                return self._run_steps(last)
            prepare(*open_inputs(self._config.prepare, self._settings), self._work / DATA, self._display)
            digest = self._digest()
            if last and last.state.get("digest") == digest and not force_new:
                return PipelineOutcome(
                    None, False, f"photos and options are those of {last.folder.name}: nothing to do"
                )
            run = PipelineRun(self._work / RUNS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}")
            run.record(digest=digest)
            return self._run_steps(run)

    def _run_steps(self, run: PipelineRun) -> PipelineOutcome:
        if run.state["digest"] != self._digest():
            raise ConfigError(
                f"{run.folder}: was interrupted with other photos or options; restore them, or start a new run with"
                " --again"
            )
        run.run_once("fit", lambda: self._fit(run.folder), self._display)
        shutil.rmtree(run.folder / FEATURES_FOLDER, ignore_errors=True)  # gigabytes that the next run cannot use
        run.run_once("evaluate", lambda: self._evaluate(run.folder), self._display)
        run.run_once("export", lambda: self._export(run.folder), self._display)
        outcome = self._promote(run.folder)
        run.record(outcome={"version": outcome.version, "promoted": outcome.promoted, "why": outcome.reason})
        return outcome

    def _fit(self, folder: Path) -> None:
        if (folder / LAST_CHECKPOINT).exists():
            saved = load_run(folder)
            fit(saved.config, folder, self._display, saved=saved)
            return
        config = Config(
            data=DataConfig(
                photos=self._work / DATA / PHOTOS,
                index=self._work / DATA / MANIFEST,
                size=self._config.data.size,
                jpeg_quality=prepared_jpeg_quality(self._work / DATA, self._config.data.size) or 0,
                split_seed=self._config.data.split_seed,
                split_column=self._config.data.split_column,
                class_shares=self._config.data.class_shares,
            ),
            model=self._config.model,
            augment=self._config.augment,
            train=self._config.train,
        )
        fit(config, folder, self._display)

    def _evaluate(self, folder: Path) -> None:
        report.write(evaluate(folder / BEST_CHECKPOINT, Split.TEST, {}, self._display), folder / "evaluation-test.json")

    def _export(self, folder: Path) -> None:
        version = f"{self._config.model.architecture}-{folder.name}"
        options = ExportOptions(self._config.export.variants, self._config.export.max_loss, version)
        export(folder / BEST_CHECKPOINT, folder / BUNDLE, options, {}, self._display)

    def _promote(self, folder: Path) -> PipelineOutcome:
        """Promote the model if it is better. A worse model is not an error, so cron sends no mail."""
        version = f"{self._config.model.architecture}-{folder.name}"
        current = self._registry.current()
        if current and current.version == version:  # the run was interrupted after the promotion
            return PipelineOutcome(version, True, "in use already")
        photos = {"photos": self._work / DATA / PHOTOS, "index": self._work / DATA / MANIFEST}
        try:
            decision = promote(
                str(folder / BUNDLE), self._registry, photos, self._display, initial=self._settings.model_dir
            )
        except PromotionError as error:
            return PipelineOutcome(version, False, str(error))
        reason = decision.comparison.verdict() if decision.comparison else "the first model"
        return PipelineOutcome(version, True, reason)

    def _digest(self) -> str:
        """SHA-256 of the manifest (photos and labels) and the options."""
        digest = hashlib.sha256((self._work / DATA / MANIFEST).read_bytes())
        digest.update(self._config.model_dump_json(exclude={"prepare"}).encode())
        return digest.hexdigest()


def read_pipeline(file: Path) -> PipelineConfig:
    """Read the configuration of all steps. Raises ConfigError, which names the invalid option."""
    try:
        return PipelineConfig.model_validate(read_toml(file))
    except ValidationError as error:
        raise ConfigError(f"{file}: {first_mistake(error, PipelineConfig).text}") from error
