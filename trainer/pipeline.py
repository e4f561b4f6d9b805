"""`pipeline`: prepare → fit → evaluate → export → compare and promote. An interrupted run continues at its step."""

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
    mistake,
    read_tree,
)
from trainer.data.source import prepared_jpeg_quality
from trainer.data.split import Split
from trainer.disk import make_folder, sole_process, write_json
from trainer.display import Display
from trainer.errors import ConfigError, PromotionError
from trainer.evaluation import report
from trainer.evaluation.evaluate import evaluate
from trainer.export.bundle import ExportOptions, export
from trainer.prepare.config import PrepareConfig
from trainer.prepare.outputs import MANIFEST
from trainer.prepare.place import PHOTOS
from trainer.prepare.run import opened, prepare
from trainer.publish.promote import promote
from trainer.train.fit import fit, load_run
from trainer.train.run_files import BEST_CHECKPOINT, FEATURES_FOLDER, LAST_CHECKPOINT

STATE = "pipeline.json"
DATA, RUNS, BUNDLE = "data", "runs", "bundle"


class ExportConfig(Section):
    """The table [export]: variants, and the accuracy that one may lose."""

    variants: tuple[Precision, ...] = (Precision.FP32, Precision.INT8)
    max_loss: float = 0.005


class SplitConfig(Section):
    """The table [data]: the options that do not follow from `prepare`."""

    size: int = INPUT_SIZE
    split_seed: int = 0
    split_column: str = ""
    class_shares: ClassShares = ()


class PipelineConfig(Section):
    """The tables of the one TOML file for all steps."""

    prepare: PrepareConfig
    data: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()


@dataclass(frozen=True)
class PipelineOutcome:
    """The result of a pipeline. `version` is None if photos, labels and options have not changed."""

    version: str | None
    promoted: bool
    why: str


class PipelineRun:
    """One run of all steps, in a folder of its own; `pipeline.json` contains the steps that are done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / STATE
        self.state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def note(self, **facts: Any) -> None:
        """Add facts to the state, and store it before anything else happens."""
        self.state |= facts
        make_folder(self.folder)
        write_json(self.folder / STATE, self.state)

    def once(self, step: str, work: Callable[[], object], display: Display) -> None:
        """Do a step, unless it is done."""
        if step in self.state.get("done", []):
            display.say(f"{step}: done before")
            return
        display.say(f"{step} …")
        work()
        self.note(done=[*self.state.get("done", []), step])


class Pipeline:
    """All steps in the folder `work`: photos in `data`, a folder per run in `runs`."""

    def __init__(
        self, work: Path, config: PipelineConfig, settings: Settings, registry: Registry, display: Display
    ) -> None:
        self._work = work
        self._config = config
        self._settings = settings
        self._registry = registry
        self._display = display

    def run(self, *, again: bool = False) -> PipelineOutcome:
        """Continue the interrupted run, or start a new one if photos, labels or options have changed.

        `again` starts one in any case. Raises ConfigError if another pipeline is running in the same folder.
        """
        # A run that takes longer than cron's interval must not meet the next one.
        with sole_process(self._work, "another pipeline is running here; wait for it"):
            folders = sorted(file.parent for file in (self._work / RUNS).glob(f"*/{STATE}"))
            last = PipelineRun(folders[-1]) if folders else None
            if last and "outcome" not in last.state and not again:
                self._display.say(f"continuing {last.folder.name}")
                return self._steps(last)
            prepare(*opened(self._config.prepare, self._settings), self._work / DATA, self._display)
            digest = self._digest()
            if last and last.state.get("digest") == digest and not again:
                return PipelineOutcome(
                    None, False, f"photos and options are those of {last.folder.name}: nothing to do"
                )
            run = PipelineRun(self._work / RUNS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}")
            run.note(digest=digest)
            return self._steps(run)

    def _steps(self, run: PipelineRun) -> PipelineOutcome:
        if run.state["digest"] != self._digest():
            raise ConfigError(
                f"{run.folder}: was interrupted with other photos or options; restore them, or start a new run with"
                " --again"
            )
        run.once("fit", lambda: self._fit(run.folder), self._display)
        shutil.rmtree(run.folder / FEATURES_FOLDER, ignore_errors=True)  # gigabytes, which the next run cannot use
        run.once("evaluate", lambda: self._evaluate(run.folder), self._display)
        run.once("export", lambda: self._export(run.folder), self._display)
        outcome = self._promote(run.folder)
        run.note(outcome={"version": outcome.version, "promoted": outcome.promoted, "why": outcome.why})
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
        wanted = self._config.export
        export(
            folder / BEST_CHECKPOINT,
            folder / BUNDLE,
            ExportOptions(wanted.variants, wanted.max_loss, version),
            {},
            self._display,
        )

    def _promote(self, folder: Path) -> PipelineOutcome:
        """Compare and promote. A model that is not better is no error, so that cron does not send a mail."""
        version = f"{self._config.model.architecture}-{folder.name}"
        current = self._registry.current()
        if current and current.version == version:  # an interruption came after the promotion
            return PipelineOutcome(version, True, "in use already")
        photos = {"photos": self._work / DATA / PHOTOS, "index": self._work / DATA / MANIFEST}
        try:
            done = promote(
                str(folder / BUNDLE), self._registry, photos, self._display, bundled=self._settings.model_dir
            )
        except PromotionError as error:
            return PipelineOutcome(version, False, str(error))
        return PipelineOutcome(version, True, done.comparison.verdict() if done.comparison else "the first model")

    def _digest(self) -> str:
        """Digest of photos, labels and options."""
        found = hashlib.sha256((self._work / DATA / MANIFEST).read_bytes())
        found.update(self._config.model_dump_json(exclude={"prepare"}).encode())
        return found.hexdigest()


def read_pipeline(file: Path) -> PipelineConfig:
    """The configuration of all steps. Raises ConfigError that names the option."""
    try:
        return PipelineConfig.model_validate(read_tree(file))
    except ValidationError as error:
        raise ConfigError(f"{file}: {mistake(error, PipelineConfig).text}") from error
