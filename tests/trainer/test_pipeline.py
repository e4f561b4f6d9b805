"""The pipeline from a bucket of sample photos to a model in use, interrupted and continued at every step."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from binwatch.bundle import Bundle
from binwatch.errors import PromotionConflictError
from binwatch.events import ObjectCreated
from binwatch.objects import Objects
from binwatch.records.tables import Count
from binwatch.registry import Registry
from binwatch.settings import Settings
from testing.services.s3 import S3
from tests.trainer.drawn import run_cli
from tests.trainer.grey import write_grey_bundle
from trainer import pipeline
from worker.counting import Counting

SAMPLES = Path(__file__).parents[2] / "samples"
CONFIG = """
[prepare]
source = "s3://{bucket}"
endpoint = "{endpoint}"
all = true
size = 224

[data]
split_seed = 9  # one that has every class among the training photos: the samples are test and validation photos

[model]
architecture = "resnet50v2"
weights = "none"
width = 0.125
freeze = "layer4"

[augment]
views = 1

[train]
epochs = 1
threads = 2

[export]
variants = ["int8"]
max_loss = 1.0  # of 20 photos one is 5 points
"""


class Stopped(Exception):
    """Simulated kill of a pipeline."""


@pytest.fixture
def config(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv("BINWATCH_BUCKET", s3.bucket)
    monkeypatch.setenv("BINWATCH_MODEL_DIR", "none")  # no initial model to beat
    for folder in ("bin-images", "metadata"):
        for file in sorted((SAMPLES / folder).iterdir()):
            s3.put(f"{folder}/{file.name}", file.read_bytes())
    path = tmp_path / "pipeline.toml"
    path.write_text(CONFIG.format(bucket=s3.bucket, endpoint=s3.endpoint_url), encoding="utf-8")
    return path


def test_interrupted_pipeline_promotes_a_model(
    s3: S3, config: Path, tmp_path: Path, sqlite_records: Engine, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    work = tmp_path / "work"
    registry = Registry(Objects(Settings(s3_endpoint_url=s3.endpoint_url)), s3.bucket, "models/")
    done: list[str] = []

    def stopping(step: str) -> None:
        """Kill the pipeline once right before `step`, then let the step run."""
        real: Callable[..., object] = getattr(pipeline, step)

        def killed(*arguments: object, **options: object) -> object:
            if step not in done:
                done.append(step)
                raise Stopped
            return real(*arguments, **options)

        monkeypatch.setattr(pipeline, step, killed)

    steps = ["prepare", "fit", "evaluate", "export", "promote"]
    for step in steps:
        stopping(step)
    for step in steps:
        with pytest.raises(Stopped):
            run_cli("pipeline", "--config", config, "--work", work)
        assert done[-1] == step
    capsys.readouterr()
    run_cli("pipeline", "--config", config, "--work", work)
    output = capsys.readouterr().err
    for step in ("fit", "evaluate", "export"):
        assert f"{step}: done before" in output  # five starts, and each step ran once

    (run,) = (work / "runs").iterdir()
    current = registry.current()
    assert current is not None
    assert current.version == f"resnet50v2-{run.name}"
    card = registry.card(current.version)
    assert card.jpeg_quality == 95
    assert card.training["data"]["photos"] == {"train": 80, "validation": 23, "test": 19}
    assert (run / "evaluation-test.html").exists()
    assert Bundle(run / "bundle").card == card
    assert {file.name for file in (run / "bundle").iterdir()} == {"card.json", "model-int8.onnx"}  # as configured
    assert not list(run.rglob("*.partial"))  # no working files left
    assert not list(run.rglob("*.npy"))  # and no features, which have gigabytes

    settings = Settings(
        bucket=s3.bucket, s3_endpoint_url=s3.endpoint_url, database_url=str(sqlite_records.url),
        model_cache=tmp_path / "cache", inference_threads=1, fetch_threads=1, worker_concurrency=1,
    )  # fmt: skip
    counting = Counting(settings)
    try:
        assert counting.count([ObjectCreated(s3.bucket, "bin-images/00184.jpg")]) == []
        with counting.database.connect() as connection:
            assert connection.execute(select(Count.model_version)).scalars().all() == [current.version]
    finally:
        counting.close()

    run_cli("pipeline", "--config", config, "--work", work)  # the next start by cron
    assert "nothing to do" in capsys.readouterr().err
    assert len(list((work / "runs").iterdir())) == 1


def test_model_that_is_not_better_is_not_an_error(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def export(*_: object, **__: object) -> None:
        (run,) = (tmp_path / "work" / "runs").iterdir()
        folder = write_grey_bundle(tmp_path, f"resnet50v2-{run.name}")
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        card["jpeg_quality"], card["training"] = 95, {"config": {"data": {"split_seed": 9}}}
        (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
        folder.rename(run / "bundle")

    run_cli("promote", write_grey_bundle(tmp_path, "first"))
    monkeypatch.setattr(pipeline, "fit", lambda *_, **__: None)
    monkeypatch.setattr(pipeline, "evaluate", lambda *_, **__: None)
    monkeypatch.setattr(pipeline.report, "write", lambda *_: None)
    monkeypatch.setattr(pipeline, "export", export)
    run_cli("pipeline", "--config", config, "--work", tmp_path / "work")
    output = " ".join(capsys.readouterr().err.split())
    assert "not promoted: resnet50v2-" in output
    assert "is not found to be better than first on 19 test photos" in output
    state = next((tmp_path / "work" / "runs").glob("*/pipeline.json"))
    assert json.loads(state.read_text(encoding="utf-8"))["outcome"]["promoted"] is False


def test_overtaken_promotion_leaves_the_run_unfinished(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli_error: Callable[..., str]
) -> None:
    """The next start compares with the model that was promoted in the meantime."""
    for step in ("fit", "evaluate", "export"):
        monkeypatch.setattr(pipeline, step, lambda *_, **__: None)
    monkeypatch.setattr(pipeline.report, "write", lambda *_: None)

    def overtaken(*_: object, **__: object) -> None:
        raise PromotionConflictError("another model was promoted meanwhile")

    monkeypatch.setattr(pipeline, "promote", overtaken)
    assert "another model was promoted meanwhile" in cli_error(
        "pipeline", "--config", config, "--work", tmp_path / "work"
    )
    state = next((tmp_path / "work" / "runs").glob("*/pipeline.json"))
    assert "outcome" not in json.loads(state.read_text(encoding="utf-8"))


def test_only_one_pipeline_runs_in_a_folder(config: Path, tmp_path: Path, cli_error: Callable[..., str]) -> None:
    work = tmp_path / "work"
    work.mkdir()
    with (work / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another pipeline is running here" in cli_error("pipeline", "--config", config, "--work", work)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[train]", "[trian]", "trian is not an option (did you mean train?)"),
        ("all = true", "", "prepare: Value error, choose one of list, per_class and all"),
        ("epochs = 1", "epoch = 1", "train.epoch is not an option (did you mean train.epochs?)"),
        ('variants = ["int8"]', 'variants = ["int4"]', "export.variants.0: Input should be 'fp32', 'fp16' or 'int8'"),
    ],
)
def test_wrong_configuration_is_reported_at_once(
    tmp_path: Path, cli_error: Callable[..., str], old: str, new: str, message: str
) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(CONFIG.replace(old, new), encoding="utf-8")
    assert message in cli_error("pipeline", "--config", path, "--work", tmp_path / "work")


def test_interrupted_run_is_not_continued_with_other_options(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli_error: Callable[..., str]
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Stopped

    monkeypatch.setattr(pipeline, "fit", killed)
    with pytest.raises(Stopped):
        run_cli("pipeline", "--config", config, "--work", tmp_path / "work")
    config.write_text(config.read_text(encoding="utf-8").replace("epochs = 1", "epochs = 2"), encoding="utf-8")
    message = cli_error("pipeline", "--config", config, "--work", tmp_path / "work")
    assert "was interrupted with other photos or options; restore them, or start a new run with --again" in message
