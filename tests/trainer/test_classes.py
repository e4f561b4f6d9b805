"""Training photos that lack some classes: the model predicts only the classes that it has learned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from binwatch import conformal
from binwatch.bundle import Bundle, Card, Precision, write_card
from binwatch.counts import CLASSES, class_probabilities
from binwatch.errors import BundleError
from binwatch.objects import Objects
from binwatch.registry import Registry
from binwatch.settings import Settings
from testing.services.s3 import S3
from tests.trainer.drawn import QUICK, Data, draw, run_cli, write_index
from tests.trainer.grey import write_grey_bundle
from trainer.config import TrainConfig
from trainer.data.dataset import load_dataset
from trainer.data.index import read_index
from trainer.data.split import Split, split_of
from trainer.errors import CheckpointError, ConfigError, DataError
from trainer.evaluation.onnx_model import OnnxModel, run
from trainer.train import checkpoint
from trainer.train.losses import Loss
from trainer.train.run_files import BEST_CHECKPOINT
from worker.engine import Engine

LEARNED_CLASSES = (1, 2, 3, 4, 5)
"""Classes with photos in the capstone's list."""
ONE_EPOCH = [*QUICK, "--freeze", "layer3", "--set", "augment.views=1", "--epochs", "1"]


@pytest.fixture(scope="module")
def capstone(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Write the data set that `prepare` makes from the capstone's list: classes "1" to "5" as in its file_list.json."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("capstone")
    random = np.random.default_rng(0)
    listed: dict[str, list[str]] = {str(quantity): [] for quantity in LEARNED_CLASSES}
    for name in ("bin-images", "metadata"):
        (source / name).mkdir()
    for number in range(0, 130):  # the folder has photos of 0 and more than 5, the list has not
        key, quantity = f"{number + 100313}", number % 8
        draw(quantity, random).save(source / "bin-images" / f"{key}.jpg")
        document = {"BIN_FCSKU_DATA": {f"B{number}": {}}, "EXPECTED_QUANTITY": quantity}
        (source / "metadata" / f"{key}.json").write_text(json.dumps(document), encoding="utf-8")
        if quantity in LEARNED_CLASSES:
            listed[str(quantity)].append(f"data/metadata/{key}.json")
    (source / "file_list.json").write_text(json.dumps(listed), encoding="utf-8")
    run_cli("prepare", "--from", source, "--out", folder, "--list", source / "file_list.json")
    result = Data(folder)
    result.photos, result.index = folder / "bin-images", folder / "manifest.csv"
    return result


@pytest.fixture(scope="module")
def fitted(capstone: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_cli("fit", *capstone.flags, "--out", folder, *ONE_EPOCH)
    return folder


@pytest.fixture(scope="module")
def bundle(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    run_cli("export", fitted / BEST_CHECKPOINT, "--out", folder, "--variants", "fp32,fp16,int8", "--max-loss", 1)
    return Bundle(folder)


def test_the_prepare_report_names_absent_classes(capstone: Data) -> None:
    report = (capstone.index.parent / "report.md").read_text(encoding="utf-8")
    assert "**No training photo shows 0, more than 5 items: a model will not be able to predict these.**" in report


def test_fit_warns_about_absent_classes(
    capstone: Data, fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = checkpoint.load(fitted / BEST_CHECKPOINT)
    assert saved.classes == LEARNED_CLASSES
    photos = load_dataset(saved.config.data)[Split.TEST].pixels(range(4))
    with torch.inference_mode():
        chances = torch.softmax(saved.model()(torch.from_numpy(photos))[0], dim=1)
    assert chances[:, [0, 6]].eq(0).all()
    assert chances[:, LEARNED_CLASSES].gt(0).all()
    run_cli("fit", *capstone.flags, "--out", tmp_path / "warned", *ONE_EPOCH)
    captured = " ".join(capsys.readouterr().err.split())
    assert "no training photo shows 0, more than 5 items: the model will not be able to predict these" in captured
    assert (
        "add photos that show them: `prepare --per-class N` fetches N of each class, `prepare --list FILE" in captured
    )


@pytest.mark.parametrize("loss", ["ordinal", "cross_entropy"])
def test_targets_of_absent_classes_are_zero(loss: str) -> None:
    result = Loss(TrainConfig.model_validate({"loss": loss}), classes=LEARNED_CLASSES)
    targets = result.targets(torch.tensor([1, 3, 5]))
    assert targets[:, [0, 6]].eq(0).all()
    assert targets.sum(dim=1).tolist() == pytest.approx([1, 1, 1])
    logits = torch.zeros(3, 7, requires_grad=True)
    answers = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0]] * 3)  # a teacher's probabilities of unlearned classes are ignored
    taught = Loss(TrainConfig.model_validate({"loss": loss}), classes=LEARNED_CLASSES)(
        logits, torch.tensor([1, 3, 5]), teacher_probabilities=answers
    )
    assert torch.isfinite(taught)


def test_evaluate_names_classes_that_the_model_cannot_predict(
    fitted: Path, data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli("evaluate", fitted / BEST_CHECKPOINT, *data.flags, "--every", "--out", tmp_path / "found.json")
    assert "The model cannot predict 0, more than 5; 60 of these photos show that" in capsys.readouterr().err
    result = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert result["answers"] == list(LEARNED_CLASSES)
    table = np.array(result["metrics"]["all"]["confusion"])
    assert table.sum() == 160
    assert table[:, [0, 6]].sum() == 0
    assert "cannot predict 0, more than 5" in (tmp_path / "found.html").read_text(encoding="utf-8")


def test_a_card_lists_the_predictable_classes(bundle: Bundle) -> None:
    card = bundle.card
    assert (card.answers, card.unlearned_classes) == (LEARNED_CLASSES, (0, 6))
    assert "Cannot predict 0, more than 5: no training photo shows these." in card.notes
    assert card.reference is not None
    assert (card.reference.labels[0], card.reference.labels[6]) == (0, 0)
    assert card.reference.predicted[0] + card.reference.predicted[6] == 0
    assert card.calibration is not None
    assert [index for category in card.calibration.categories for index in category.classes] == list(LEARNED_CLASSES)
    assert 0.05 < card.temperature < 20


@pytest.mark.parametrize("precision", list(Precision))
def test_every_variant_gives_absent_classes_no_probability(bundle: Bundle, data: Data, precision: Precision) -> None:
    photos = load_dataset(_config(data))[Split.TEST]
    distribution, _ = run(OnnxModel(bundle.model_path(precision)), photos)
    assert (distribution[:, 6:] == 0).all()  # quantities beyond 5 are all learned or all not
    probabilities = class_probabilities(distribution)
    assert probabilities.shape == (len(photos), len(CLASSES))
    assert (probabilities[:, [0, 6]] == 0).all()
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-3)


def test_a_model_of_all_classes_is_exported_without_a_mask(data: Data, tmp_path: Path) -> None:
    from trainer.config import ModelConfig
    from trainer.export.graph import write_onnx
    from trainer.models import build

    model = build(ModelConfig(architecture="resnet50v2", width=0.125, weights="none"))
    write_onnx(model.eval(), 1.0, tmp_path / "model.onnx")
    assert "Where" not in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}


def test_a_worker_logs_absent_classes(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    Engine(bundle, threads=1)
    assert f"model {bundle.card.version} cannot predict 0, more than 5: no training photo showed it" in caplog.messages


def test_tune_with_absent_classes(capstone: Data, tmp_path: Path) -> None:
    run_cli(
        "tune",
        *capstone.flags,
        "--out",
        tmp_path,
        "--trials",
        1,
        *QUICK,
        "--set",
        "model.freeze=layer3",
        "--set",
        "train.epochs=1",
    )
    assert (tmp_path / "trial-0" / BEST_CHECKPOINT).exists()


def test_a_run_is_resumed_with_the_same_classes_only(capstone: Data, data: Data, tmp_path: Path) -> None:
    index = tmp_path / "index.csv"
    rows: list[tuple[str, object, str]] = [(row.key, row.quantity, row.group) for row in read_index(_config(data))]
    write_index(index, [row for row in rows if row[1] in LEARNED_CLASSES])
    flags = ["--photos", data.photos, "--index", index]
    run_cli("fit", *flags, "--out", tmp_path / "run", *ONE_EPOCH)
    write_index(index, rows)
    with pytest.raises(CheckpointError, match="was trained on photos of 1, 2, 3, 4, 5, and the training photos show 0"):
        run_cli("fit", "--out", tmp_path / "run", "--resume", "--epochs", 2)


def test_a_teacher_must_predict_all_learned_classes(fitted: Path, data: Data, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot predict 0, more than 5, which training photos show here"):
        run_cli(
            "fit", *data.flags, "--out", tmp_path / "run", *ONE_EPOCH, "--set", f"distil.teachers=['{fitted}']",
        )  # fmt: skip


def test_a_single_class_is_refused(data: Data, tmp_path: Path) -> None:
    rows: list[tuple[str, object, str]] = [(row.key, row.quantity, row.group) for row in read_index(_config(data))]
    write_index(tmp_path / "index.csv", [row for row in rows if row[1] == 3])
    with pytest.raises(DataError, match="all training photos show 3 items; add photos of other quantities"):
        run_cli(
            "fit", "--photos", data.photos, "--index", tmp_path / "index.csv", "--out", tmp_path / "run", *ONE_EPOCH
        )


def test_absent_classes_get_no_p_value() -> None:
    random = np.random.default_rng(0)
    labels = np.tile(np.arange(7), 100)
    chances = np.zeros((700, 7))
    chances[:, LEARNED_CLASSES] = random.dirichlet(np.ones(5), 700)
    groups = [str(number) for number in range(700)]
    result = conformal.calibrate(chances, labels, groups, "test", answers=LEARNED_CLASSES)
    assert result.photos == 500
    values = conformal.PValueTable(result)
    sure = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert (values.p_values(sure, 0), values.p_values(sure, 17)) == (None, None)
    assert conformal.judge(sure, 17, values) == conformal.UNKNOWN_JUDGEMENT
    found_of_three = values.p_values(sure, 3)
    assert found_of_three is not None
    assert found_of_three["missing"] == pytest.approx(1 / 101)


@pytest.mark.parametrize("answers", [(), (2, 1), (1, 1), (1, 7)])
def test_a_card_with_impossible_answers_is_refused(tmp_path: Path, answers: tuple[int, ...]) -> None:
    folder = write_grey_bundle(tmp_path, "v1")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    (folder / "card.json").write_text(json.dumps(card | {"answers": answers}), encoding="utf-8")
    with pytest.raises(BundleError, match="answers: "):
        Bundle(folder)


@pytest.fixture
def registry(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("BINWATCH_S3_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv("BINWATCH_BUCKET", s3.bucket)
    monkeypatch.setenv("BINWATCH_MODEL_DIR", "none")  # no initial model to beat
    return Registry(Objects(Settings()), s3.bucket, "models/")


def limited(folder: Path, version: str, brightness: float = 1.0) -> Path:
    """Write a model whose card limits its predictions to 1 to 5."""
    made = write_grey_bundle(folder, version, brightness=brightness)
    card: Card = Bundle(made).card
    write_card(made, card.model_copy(update={"answers": LEARNED_CLASSES}))
    return made


def test_a_model_with_fewer_classes_does_not_win_on_photos_without_them(
    registry: Registry, grey: Data, tmp_path: Path, cli_error: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """On photos of 1 to 5 items it has an easier task, but in production it miscounts every empty bin."""
    tested = [name for name in map(str, range(100)) if split_of(name) is Split.TEST]
    rows: list[tuple[str, object, str]] = [(row.key, row.quantity, row.group) for row in read_index(_config(grey))]
    rows += [(f"{label:05}", label, group) for label, group in enumerate(tested[:7])]
    rows = list({row[0]: row for row in rows}.values())
    few, all_classes = tmp_path / "few.csv", tmp_path / "every.csv"
    write_index(few, [row for row in rows if row[1] in LEARNED_CLASSES])
    write_index(all_classes, rows)
    run_cli("promote", write_grey_bundle(tmp_path, "v1", brightness=0.5))
    candidate = limited(tmp_path, "v2")
    message = cli_error("promote", candidate, "--photos", grey.photos, "--index", few)
    assert "v2 is not found to be better than v1" in message
    assert "it cannot predict 0, more than 5, which v1 can, and no test photo shows that" in message
    run_cli(
        "promote", candidate, "--photos", grey.photos, "--index", all_classes
    )  # these photos show all classes: those it cannot predict count as wrong
    assert registry.current().version == "v2"
    assert "warning: v2 cannot predict 0, more than 5" in capsys.readouterr().err
    run_cli(
        "promote", write_grey_bundle(tmp_path, "v3"), *grey.flags, "--force"
    )  # there is no such rule in the other direction
    assert registry.current().version == "v3"


def _config(data: Data):
    from trainer.config import DataConfig

    return DataConfig(photos=data.photos, index=data.index)
