"""Distillation: targets from teachers, and refusal of unsuitable teachers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.drawn import QUICK, Data, run_cli
from tests.trainer.test_run import config_of
from trainer.config import Config
from trainer.data.dataset import PhotoSet, load_dataset
from trainer.data.split import Split
from trainer.display import Display, silent_display
from trainer.errors import BinwatchError, CheckpointError
from trainer.evaluation.evaluate import torch_logits
from trainer.export.bundle import teacher_notes, training_facts
from trainer.models.targets import class_logits
from trainer.train import checkpoint
from trainer.train.checkpoint import Checkpoint
from trainer.train.features import FeatureCache
from trainer.train.fit import fit, load_run, load_teachers
from trainer.train.run_files import BEST_CHECKPOINT, LAST_CHECKPOINT

HEAD_ONLY: dict[str, object] = {"model__freeze": "last", "model__dropout": 0.0, "augment__views": 1}
"""Flags of a student whose head is trained on cached features."""


@pytest.fixture(scope="module")
def teacher(data: Data, fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a confident model whose predictions differ by photo and from the labels; return its folder."""
    saved = checkpoint.load(fitted / BEST_CHECKPOINT)
    photos = load_dataset(config_of(data).data)[Split.TRAIN]
    with torch.inference_mode():
        embedding = saved.model()(torch.from_numpy(photos.pixels(range(len(photos)))))[1]
    spread, axes = torch.linalg.svd(embedding - embedding.mean(dim=0), full_matrices=False)[1:]
    axis = axes[0] * len(photos) ** 0.5 / spread[0]  # direction of the largest variance of the embeddings
    step = torch.arange(22.0) - 3
    saved.weights["head.classify.weight"] = 2 * step[:, None] * axis
    saved.weights["head.classify.bias"] = -(step**2) / 2 - 2 * step * (axis @ embedding.mean(dim=0))
    folder = tmp_path_factory.mktemp("teachers") / "sure"
    folder.mkdir()
    checkpoint.save(folder / BEST_CHECKPOINT, saved)
    return folder


def probabilities(file: Path, photos: PhotoSet) -> torch.Tensor:
    saved = checkpoint.load(file)
    logits = torch_logits(saved.model(), photos, saved.config.train, silent_display())
    return torch.softmax(class_logits(torch.from_numpy(logits)), dim=1)


def changed(folder: Path, teacher: Path, change: Callable[[Checkpoint], None]) -> Path:
    """Write a changed copy of the teacher."""
    saved = checkpoint.load(teacher / BEST_CHECKPOINT)
    change(saved)
    folder.mkdir()
    checkpoint.save(folder / BEST_CHECKPOINT, saved)
    return folder


def with_data(**options: Any) -> Callable[[Checkpoint], None]:
    def change(saved: Checkpoint) -> None:
        data = saved.config.data.model_copy(update=options)
        saved.config = saved.config.model_copy(update={"data": data})

    return change


def test_a_student_learns_its_teachers_output(data: Data, teacher: Path, tmp_path: Path) -> None:
    """It learns only from the teacher's outputs, and approaches them on unseen photos too."""
    options = HEAD_ONLY | {"model__weights": str(teacher / BEST_CHECKPOINT), "augment__flip": False, "train__ema": 0.8}
    options |= {"train__epochs": 20, "train__learning_rate": 0.003, "model__head": "capstone", "train__batch_size": 12}
    fit(config_of(data, **options, distil__teachers=[teacher], distil__share=1.0), tmp_path, silent_display())
    for split, share in ((Split.TRAIN, 0.25), (Split.VALIDATION, 0.4)):
        photos = load_dataset(config_of(data).data)[split]
        expected, student = (
            probabilities(file, photos) for file in (teacher / BEST_CHECKPOINT, tmp_path / LAST_CHECKPOINT)
        )
        assert len(set(expected.argmax(dim=1).tolist())) > 2
        one_for_all = float((expected - expected.mean(dim=0)).abs().mean())
        assert one_for_all > 0.1
        assert float((student - expected).abs().mean()) < share * one_for_all, split


@pytest.mark.parametrize("flip", [True, False])
def test_teachers_mean_probabilities_at_a_temperature(
    data: Data, teacher: Path, fitted: Path, tmp_path: Path, flip: bool
) -> None:
    """They are computed for each photo and, with random flips, for its mirror image."""
    teachers = [teacher, fitted / BEST_CHECKPOINT]
    config = config_of(data, distil__teachers=teachers, distil__temperature=3.0, augment__flip=flip)
    result = load_teachers(config)
    assert result is not None
    photos = load_dataset(config.data)[Split.TEST]
    pixels = torch.from_numpy(photos.pixels(range(len(photos))))
    ways = [pixels, pixels.flip(2)] if flip else [pixels]
    models = [checkpoint.load(folder / BEST_CHECKPOINT).model() for folder in (teacher, fitted)]
    with torch.inference_mode():
        outputs = [torch.softmax(model(each)[0] / 3, dim=1) for model in models for each in ways]

    labels: list[str] = []

    def progress(batches, photos, label):  # type: ignore[no-untyped-def]
        labels.append(label)
        return batches

    cache = FeatureCache(tmp_path, config.augment, config.train, progress)
    expected = torch.stack(outputs).mean(dim=0)
    torch.testing.assert_close(result.probabilities(photos, cache, mirrored=flip), expected, rtol=1e-4, atol=1e-5)
    assert expected.sum(dim=1).tolist() == pytest.approx([1] * 10)
    assert [what.rpartition("/")[2] for what in labels] == ["best.pt, view 0"] * 2
    milder = load_teachers(config_of(data, distil__teachers=[teacher, fitted], distil__temperature=9.0))
    assert milder is not None
    milder.probabilities(photos, cache, mirrored=flip)
    assert len(labels) == 2  # the cache stores logits, not probabilities


def test_a_teacher_of_another_architecture(data: Data, fitted: Path, tmp_path: Path) -> None:
    """Checkpoint and card name the teachers without their folders."""
    teach = ["--set", f"distil.teachers=['{fitted}']", "--set", "distil.share=0.7"]
    options = ["--set", "model.width=1", "--set", "model.architecture=resnet18", "--freeze", "layer4", "--epochs", 1]
    run_cli("fit", *data.flags, "--out", tmp_path / "run", *QUICK, *options, *teach)
    saved = checkpoint.load(tmp_path / "run" / BEST_CHECKPOINT)
    (named,) = saved.facts["teachers"]
    assert named["name"] == f"{fitted.name}/best.pt"
    assert (named["architecture"], named["epoch"]) == ("resnet50v2", checkpoint.load(fitted / BEST_CHECKPOINT).epoch)
    facts = training_facts(saved)
    assert facts["teachers"] == [named]
    assert facts["config"]["distil"] == {"teachers": [named["name"]], "share": 0.7, "temperature": 1.0}
    assert teacher_notes(saved) == [f"Learned 70% from the mean output of {fitted.name}/best.pt; the rest from labels."]
    assert str(fitted.parent) not in str(facts)
    assert teacher_notes(checkpoint.load(fitted / BEST_CHECKPOINT)) == []


def test_a_run_is_resumed_with_the_same_teachers_only(data: Data, teacher: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(teacher, tmp_path / "teacher")
    config = config_of(data, **HEAD_ONLY, distil__teachers=[folder], train__epochs=1)
    fit(config, tmp_path / "run", silent_display())

    def learn_more(saved: Checkpoint) -> None:
        saved.weights["head.classify.bias"] += 1

    shutil.rmtree(folder)
    changed(folder, teacher, learn_more)
    saved = load_run(tmp_path / "run", epochs=2)
    with pytest.raises(CheckpointError, match=r"teacher/best\.pt: not the model with which the run began"):
        fit(saved.config, tmp_path / "run", Display(), saved=saved)


WRONG = [
    (with_data(split_seed=7), {}, r"was trained with data\.split_seed=7, and this run has 0: it may know"),
    (with_data(group_column="shelf"), {}, r"was trained with data\.group_column='shelf', and this run has 'bin_group'"),
    (with_data(split_column="part"), {}, r"was trained with data\.split_column='part', and this run has ''"),
    (
        lambda saved: saved.weights.update({"head.classify.weight": torch.zeros(6, 64)}),
        {},
        r"best\.pt: the weights do not fit the configuration",
    ),
    (lambda saved: None, {"model__highest": 5}, r"best\.pt has model\.highest=20, and this run has 5: its outputs are"),
    (with_data(split_column="split"), {"data__split_column": "split"}, "was trained with other labels than"),
]
CASES = ["seed", "groups", "column", "classes", "highest", "index"]


@pytest.mark.parametrize(("change", "own", "message"), WRONG, ids=CASES)
def test_wrong_teachers_are_reported_before_photos_are_decoded(
    data: Data, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Checkpoint], None], own: dict[str, object], message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(PhotoSet, "decode", lambda *_: pytest.fail("a photo was decoded"))
    if own:
        data = with_splits(data, tmp_path)
    config = config_of(data, **own, distil__teachers=[changed(tmp_path / "wrong", teacher, change)])
    with pytest.raises(BinwatchError, match=message):
        fit(config, tmp_path / "run", silent_display())


def test_missing_teachers_are_errors(
    data: Data, tmp_path: Path, cli_error: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PhotoSet, "decode", lambda *_: pytest.fail("a photo was decoded"))

    def error(name: Path) -> str:
        teach = ["--set", f"distil.teachers=['{name}']"]
        return cli_error("fit", *data.flags, "--out", tmp_path / "run", *QUICK, *teach)

    assert error(tmp_path / "nowhere") == f"error: {tmp_path}/nowhere: no such checkpoint"
    (tmp_path / "empty").mkdir()
    assert error(tmp_path / "empty") == f"error: {tmp_path}/empty/best.pt: no such checkpoint"
    assert "index.csv: is not a checkpoint, or is damaged" in error(data.index)


def test_a_teacher_with_the_same_split_column_is_accepted(data: Data, tmp_path: Path) -> None:
    """An index is identified by its content, not by its path."""
    split = with_splits(data, tmp_path)
    config = config_of(split, **HEAD_ONLY, data__split_column="split", train__epochs=1)
    fit(config, tmp_path / "teacher", silent_display(), cache=tmp_path / "features")
    moved = replace_index(config, shutil.copy(split.index, tmp_path / "moved.csv"))
    distil = moved.distil.model_copy(update={"teachers": (tmp_path / "teacher",)})
    assert load_teachers(moved.model_copy(update={"distil": distil})) is not None


def replace_index(config: Config, index: Path) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update={"index": index})})


def with_splits(data: Data, folder: Path) -> Data:
    """Return the same photos with a split column."""
    lines = data.index.read_text(encoding="utf-8").splitlines()
    parts = ["train"] * 8 + ["validation", "test"]
    rows = [f"{line},{parts[place // 8 % 10]}" for place, line in enumerate(lines[1:])]
    result = Data(folder)
    result.photos, result.index = data.photos, folder / "split.csv"
    result.index.write_text("\n".join([f"{lines[0]},split", *rows]) + "\n", encoding="utf-8")
    return result
