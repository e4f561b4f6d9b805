"""Training from the command line and from Python: features, checkpoints, resuming, errors."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.drawn import QUICK, Data, run_cli
from trainer.config import Config, DataConfig, parse_assignment, read_config
from trainer.data.dataset import PhotoSet, load_dataset
from trainer.data.loading import read_data
from trainer.data.split import Split
from trainer.display import Display
from trainer.errors import CheckpointError, DivergedError
from trainer.models import build
from trainer.train import checkpoint
from trainer.train.features import FeatureCache
from trainer.train.fit import fit, load_run
from trainer.train.run_files import BEST_CHECKPOINT, LAST_CHECKPOINT, LOG_FILE


def config_of(data: Data, **changes: object) -> Config:
    options = dict(parse_assignment(text) for text in QUICK if text != "--set")
    options |= {"data.photos": data.photos, "data.index": data.index}
    return read_config(None, options | {name.replace("__", "."): value for name, value in changes.items()})


class Interrupted(Display):
    """A display that simulates Ctrl-C after the first epoch."""

    def say(self, text: str) -> None:
        if text.startswith("epoch 1:"):
            raise KeyboardInterrupt


def weights(folder: Path) -> dict[str, torch.Tensor]:
    saved = checkpoint.load(folder / LAST_CHECKPOINT)
    return {f"average {name}": value for name, value in saved.weights.items()} | saved.training["model"]


EVERYTHING: dict[str, object] = {
    "model__head": "capstone", "train__class_weights": "sqrt", "train__optimiser": "sgd",
    "train__schedule": "one_cycle", "train__accumulate": 3, "train__channels_last": True, "train__tensorboard": True,
    "augment__where": "device", "distil__share": 0.3, "distil__temperature": 2.0,
}  # fmt: skip


@pytest.mark.parametrize("options", [{"model__freeze": "layer3", "augment__views": 1}, EVERYTHING], ids=["", "all"])
def test_a_resumed_run_ends_with_the_same_weights(
    data: Data, fitted: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    config = config_of(data, train__epochs=2, **options, distil__teachers=[fitted])
    fit(config, tmp_path / "one", Display())
    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "two", Interrupted())
    assert len(checkpoint.load(tmp_path / "two" / LAST_CHECKPOINT).history) == 1
    run_cli("fit", "--out", tmp_path / "two", "--resume")
    uninterrupted, resumed = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert uninterrupted.keys() == resumed.keys()
    assert [name for name in uninterrupted if not torch.equal(uninterrupted[name], resumed[name])] == []
    for folder in (tmp_path / "one", tmp_path / "two"):
        assert (folder / "epochs.png").read_bytes().startswith(b"\x89PNG")
        assert len(list(folder.glob("tensorboard/events.*"))) == config.train.tensorboard


def test_a_run_writes_log_and_checkpoints(fitted: Path) -> None:
    rows = list(csv.DictReader((fitted / LOG_FILE).read_text(encoding="utf-8").splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert 0 <= float(rows[0]["val_accuracy"]) <= 1
    best = checkpoint.load(fitted / BEST_CHECKPOINT)
    assert best.config.model.freeze == "layer2"
    assert best.config.train.epochs == 2
    assert best.training == {}
    assert best.facts["data"]["photos"] == {"train": 132, "validation": 18, "test": 10}
    assert not list(fitted.rglob("*.partial"))


def test_training_learns(data: Data, tmp_path: Path) -> None:
    """Empty and full drawings differ clearly, so the loss must fall well below that of guessing."""
    config = config_of(data, train__epochs=8, model__freeze="layer3", train__learning_rate=3e-3, train__ema=0.5)
    fit(config, tmp_path, Display())
    history = checkpoint.load(tmp_path / LAST_CHECKPOINT).history
    assert history[-1]["train_loss"] < history[0]["train_loss"] - 0.3


def test_a_run_that_diverges_ends(data: Data, tmp_path: Path) -> None:
    """Its last checkpoint is that of the previous epoch, without NaN weights."""
    config = config_of(data, train__epochs=3, model__freeze="last", augment__views=1, train__ema=0.0)
    wild = config.model_copy(update={"train": config.train.model_copy(update={"learning_rate": 1e30})})

    def after(row: dict[str, float]) -> None:
        """Raise the learning rate after a normal first epoch."""
        raise Stopped

    with pytest.raises(Stopped):
        fit(config, tmp_path, Display(), on_epoch_end=after)
    saved = load_run(tmp_path)
    saved.config = wild
    with pytest.raises(
        DivergedError, match=r"epoch 2: the loss is no longer a number .*1e\+30 now; last\.pt keeps epoch 1"
    ):
        fit(wild, tmp_path, Display(), saved=saved)
    assert checkpoint.load(tmp_path / LAST_CHECKPOINT).epoch == 1


class Stopped(Exception):
    """After the first epoch."""


def test_frozen_random_layers_are_warned_about(data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(data, model__freeze="layer1.1", train__epochs=1, augment__views=1)
    fit(config, tmp_path, Display())
    output = capsys.readouterr().err
    assert "warning: stem to layer1.1 are frozen with random weights (model.weights=none)" in output


def test_a_split_column_that_divides_a_bin_is_warned_about(
    data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Photos of the same bin look alike, so training on one leaks the other."""
    splits = ["train"] * 6 + ["validation", "test"]
    index = tmp_path / "index.csv"
    with index.open("w", encoding="utf-8", newline="") as out:
        rows = ((f"{key:05}", key % 8, f"g{key // 2}", splits[key // 8 % 8]) for key in range(160))
        csv.writer(out).writerows([("key", "label", "bin_group", "own"), *rows, ("00000x", 0, "g0", "test")])
    shutil.copytree(data.photos, tmp_path / "photos")
    shutil.copy(data.photos / "00000.jpg", tmp_path / "photos" / "00000x.jpg")
    read_data(DataConfig(photos=tmp_path / "photos", index=index, split_column="own"), Display())
    output = " ".join(capsys.readouterr().err.split())
    assert "warning: bin groups with photos in more than one split (column own): 1; the model" in output


def test_gradient_accumulation_equals_a_larger_batch(data: Data, tmp_path: Path) -> None:
    """If only the head learns, the photos of a batch affect each other only through the mean gradient."""
    overrides: dict[str, object] = {"model__freeze": "last", "model__dropout": 0.0, "train__epochs": 1}
    overrides |= {"augment__views": 1, "augment__flip": False}
    for name, size, accumulation_steps in (("one", 32, 1), ("two", 16, 2)):
        config = config_of(data, **overrides, train__batch_size=size, train__accumulate=accumulation_steps)
        fit(config, tmp_path / name, Display(), cache=tmp_path / "features")
    whole_batch, accumulated = weights(tmp_path / "one"), weights(tmp_path / "two")
    torch.testing.assert_close(whole_batch["head.embed.weight"], accumulated["head.embed.weight"], rtol=1e-3, atol=1e-5)
    start = build(config.model).head.embed.weight
    assert not torch.equal(whole_batch["head.embed.weight"], start)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_a_compiled_run_gives_the_same_result_and_resumes(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is really compiled; its checkpoint has the same names and, up to rounding, the same weights."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    options: dict[str, object] = {
        "train__epochs": 2,
        "train__batch_size": 33,
        "model__freeze": "last",
        "augment__views": 1,
    }
    options |= {"model__dropout": 0.0, "model__head": "capstone"}
    config = config_of(data, train__compile=True, **options)
    cache = tmp_path / "features"
    fit(config, tmp_path / "one", Display(), cache=cache)
    assert list((tmp_path / "compiled").rglob("*.so"))
    with pytest.raises(KeyboardInterrupt):
        fit(config, tmp_path / "two", Interrupted(), cache=cache)
    fit(config, tmp_path / "two", Display(), saved=load_run(tmp_path / "two"), cache=cache)
    one, compiled = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert [name for name in one if not torch.equal(one[name], compiled[name])] == []

    fit(config_of(data, **options), tmp_path / "plain", Display(), cache=cache)
    plain = weights(tmp_path / "plain")
    assert one.keys() == plain.keys()
    # Not element by element: Adam divides by the gradient's size, so where that is near 0, rounding moves an element.
    difference = torch.linalg.norm(one["head.embed.0.weight"] - plain["head.embed.0.weight"])
    assert difference < 1e-3 * torch.linalg.norm(plain["head.embed.0.weight"])
    assert checkpoint.load(tmp_path / "one" / BEST_CHECKPOINT).model()


def test_a_missing_compiler_is_reported_before_the_run(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli_error: Callable[..., str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    message = cli_error("fit", *data.flags, "--out", tmp_path, *QUICK, "--set", "train.compile=true")
    assert "train.compile needs a C++ compiler, and there is none of g++, clang++, c++" in message


def test_patience_stops_a_run(data: Data, tmp_path: Path) -> None:
    """Without learning, no epoch improves on the first."""
    config = config_of(data, train__epochs=9, train__patience=2, train__learning_rate=1e-12, model__freeze="layer4")
    fit(config, tmp_path, Display())
    assert len(checkpoint.load(tmp_path / LAST_CHECKPOINT).history) == 3


def test_features_are_computed_once_and_for_this_network_only(data: Data, tmp_path: Path) -> None:
    config = config_of(data, model__freeze="layer1")
    photos = load_dataset(config.data)[Split.TEST]
    model = build(config.model)
    computed: list[str] = []

    def progress(batches, photos, label):  # type: ignore[no-untyped-def]
        computed.append(label)
        return batches

    def compute(model=model, config=config):  # type: ignore[no-untyped-def]
        return FeatureCache(tmp_path, config.augment, config.train, progress).frozen_features(model, photos, 2)

    first = compute()
    assert computed == ["features, view 0", "features, view 1"]
    assert first[0].shape == (10, 56, 56, 32)
    with torch.inference_mode():
        expected = model.features(torch.from_numpy(photos.pixels(range(3))))
    assert np.allclose(first[0][:3].transpose(0, 3, 1, 2), expected, rtol=1e-2, atol=1e-3)
    assert not np.array_equal(first[0], first[1])

    compute()
    assert len(computed) == 2  # nothing is recomputed
    view = next(tmp_path.glob("*-1.npy"))
    view.rename(view.with_suffix(".partial"))
    compute()
    assert computed[2:] == ["features, view 1"]  # a partial file is ignored
    with torch.no_grad():
        model.backbone.layer1[0].conv1.weight.mul_(1.1)
    compute()
    assert len(computed) == 5  # other weights, other features
    compute(config=config.model_copy(update={"augment": config.augment.model_copy(update={"zoom": 0.3})}))
    assert computed[5:] == ["features, view 1"]  # the first view has unaugmented photos


def test_a_run_is_not_overwritten(fitted: Path, data: Data, cli_error: Callable[..., str]) -> None:
    message = cli_error("fit", *data.flags, "--out", fitted, *QUICK)
    assert message.endswith("has a run already; continue it with --resume or choose another folder")


def test_resuming_refuses_another_configuration(fitted: Path, cli_error: Callable[..., str]) -> None:
    message = cli_error("fit", "--out", fitted, "--resume", "--set", "train.seed=1")
    assert "--resume takes the configuration from the checkpoint" in message


def test_a_changed_number_of_epochs_is_recorded(fitted: Path) -> None:
    saved = load_run(fitted, 5)
    assert saved.config.train.epochs == 5
    assert saved.facts["changes"] == ["after epoch 2: train.epochs from 2 to 5"]
    assert "changes" not in load_run(fitted).facts


def test_a_finished_run_is_not_restarted(
    fitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(PhotoSet, "decode", lambda *_: pytest.fail("a photo was decoded"))
    run_cli("fit", "--out", fitted, "--resume")
    assert "2 epochs are done already; a larger --epochs continues the run" in capsys.readouterr().err


def test_resuming_needs_a_run(tmp_path: Path, cli_error: Callable[..., str]) -> None:
    assert cli_error("fit", "--out", tmp_path, "--resume").endswith("last.pt: no such checkpoint")


def test_damaged_checkpoints(fitted: Path, tmp_path: Path) -> None:
    intact = (fitted / BEST_CHECKPOINT).read_bytes()
    half = tmp_path / "half.pt"
    half.write_bytes(intact[: len(intact) // 2])
    with pytest.raises(CheckpointError, match=r"half\.pt: is not a checkpoint, or is damaged"):
        checkpoint.load(half)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: is not a checkpoint of this release"):
        checkpoint.load(tmp_path / "other.pt")


def test_a_full_disk_leaves_the_last_checkpoint(fitted: Path, tmp_path: Path) -> None:
    file = tmp_path / LAST_CHECKPOINT
    shutil.copy(fitted / LAST_CHECKPOINT, file)
    file.with_suffix(".partial").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=r"last\.pt: cannot be written \(.*\); is the disk full\?"):
        checkpoint.save(file, checkpoint.load(fitted / BEST_CHECKPOINT))
    assert checkpoint.load(file).epoch == 2
    assert not file.with_suffix(".partial").is_symlink()


def test_a_checkpoint_with_weights_of_another_network(fitted: Path) -> None:
    saved = checkpoint.load(fitted / BEST_CHECKPOINT)
    saved.config = saved.config.model_copy(update={"model": saved.config.model.model_copy(update={"width": 0.25})})
    with pytest.raises(CheckpointError, match="the weights do not fit the configuration"):
        saved.model()


def test_a_checkpoint_can_be_the_initial_weights(fitted: Path, data: Data, tmp_path: Path) -> None:
    shutil.copy(fitted / BEST_CHECKPOINT, tmp_path / "start.pt")
    start = ["--set", f"model.weights={tmp_path / 'start.pt'}"]
    run_cli("fit", *data.flags, "--out", tmp_path / "run", *QUICK, *start, "--freeze", "layer4", "--epochs", 1)
    old, new = (
        checkpoint.load(fitted / BEST_CHECKPOINT).weights,
        checkpoint.load(tmp_path / "run" / BEST_CHECKPOINT).weights,
    )
    assert torch.equal(old["backbone.layer4.2.conv3.weight"], new["backbone.layer4.2.conv3.weight"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--photos", "nowhere"], "nowhere: no such folder or tar of photos"),
        (["--index", "nowhere.csv"], "nowhere.csv: cannot be read (No such file or directory)"),
        (["--freeze", "layer7"], "model.freeze: no unit 'layer7'; choose one of stem, layer1.0"),
        (["--set", "model.weights=nowhere.npz"], "nowhere.npz: no such file; model.weights is imagenet, none"),
        (["--set", "train.epoch=3"], "train.epoch is not an option (did you mean train.epochs?)"),
    ],
)
def test_errors_are_one_line(
    data: Data, tmp_path: Path, cli_error: Callable[..., str], flags: list[str], message: str
) -> None:
    assert f"error: {message}" in cli_error("fit", *data.flags, "--out", tmp_path / "run", *QUICK, *flags)
    assert not (tmp_path / "run" / LAST_CHECKPOINT).exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["model.weights=nowhere.npz"], "nowhere.npz"),
        (["model.freeze=layer9"], "layer9"),
    ],
)
def test_wrong_initial_weights_are_reported_before_photos_are_decoded(
    changes: list[str], expected: str, data: Data, tmp_path: Path, cli_error: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(PhotoSet, "decode", lambda *_: pytest.fail("a photo was decoded"))
    flags = [argument for change in changes for argument in ("--set", change)]
    assert expected in cli_error("fit", *data.flags, "--out", tmp_path / "run", *QUICK, *flags)


def test_a_single_class_is_reported_before_photos_are_decoded(
    data: Data, tmp_path: Path, cli_error: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PhotoSet, "decode", lambda *_: pytest.fail("a photo was decoded"))
    index = tmp_path / "index.csv"
    lines = data.index.read_text(encoding="utf-8").splitlines(keepends=True)
    index.write_text("".join(line for line in lines if ",2," in line or "key" in line), encoding="utf-8")
    message = cli_error("fit", "--photos", data.photos, "--index", index, "--out", tmp_path / "run", *QUICK)
    assert message == f"error: {index}: all training photos show 2 items; add photos of other quantities"


def test_an_odd_number_of_photos_gives_no_batch_of_one(data: Data, tmp_path: Path) -> None:
    """Eleven photos in batches of two, or of three in two micro-batches, would leave a single one."""
    lines = data.index.read_text(encoding="utf-8").splitlines()
    splits = ["train"] * 11 + ["validation"] * 3 + ["test"] * 2
    rows = [f"{line},{split}" for line, split in zip(lines[1:17], splits, strict=True)]
    index = tmp_path / "index.csv"
    index.write_text("\n".join([f"{lines[0]},split", *rows]) + "\n", encoding="utf-8")
    config = config_of(
        data, data__index=index, data__split_column="split", train__epochs=1, model__head="capstone",
        model__freeze="layer4", augment__views=1,
    )  # fmt: skip
    for size, accumulation_steps in ((2, 1), (3, 2)):
        options = config.train.model_copy(update={"batch_size": size, "accumulate": accumulation_steps})
        fit(config.model_copy(update={"train": options}), tmp_path / f"{size}-{accumulation_steps}", Display())
        assert checkpoint.load(tmp_path / f"{size}-{accumulation_steps}" / LAST_CHECKPOINT).epoch == 1


def with_history(folder: Path, accuracies: list[float]) -> None:
    """Replace the history of the run in `folder` by epochs with these validation accuracies."""
    saved = checkpoint.load(folder / LAST_CHECKPOINT)
    first = saved.history[0]
    saved.history = [
        first | {"epoch": epoch, "val_accuracy": accuracy} for epoch, accuracy in enumerate(accuracies, start=1)
    ]
    saved.epoch = len(accuracies)
    saved.config = saved.config.model_copy(
        update={"train": saved.config.train.model_copy(update={"epochs": saved.epoch})}
    )
    checkpoint.save(folder / LAST_CHECKPOINT, saved)
    (folder / BEST_CHECKPOINT).unlink()


def test_a_lost_best_checkpoint_is_restored_from_the_last(fitted: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(fitted, tmp_path / "run"))
    with_history(folder, [0.2, 0.3])
    run_cli("fit", "--out", folder, "--resume")
    best, last = checkpoint.load(folder / BEST_CHECKPOINT), checkpoint.load(folder / LAST_CHECKPOINT)
    assert (best.epoch, best.training) == (2, {})
    assert all(torch.equal(best.weights[name], value) for name, value in last.weights.items())
    assert "changes" not in best.facts


def test_a_lost_best_checkpoint_is_warned_about(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights of epoch 1, the best, are lost, so the best epoch from epoch 2 on is kept."""
    folder = Path(shutil.copytree(fitted, tmp_path / "run"))
    with_history(folder, [1.1, -0.1])
    run_cli("fit", "--out", folder, "--resume", "--epochs", 3)
    output = " ".join(capsys.readouterr().err.split())
    assert "best.pt is missing, and was of epoch 1; last.pt has only epoch 2: the best of this" in output
    best = checkpoint.load(folder / BEST_CHECKPOINT)
    assert best.epoch == 3
    assert (
        "after epoch 2: the checkpoint of epoch 1, the best, was lost"
        in checkpoint.load(folder / LAST_CHECKPOINT).facts["changes"]
    )
    (folder / BEST_CHECKPOINT).unlink()
    run_cli("fit", "--out", folder, "--resume")  # the best checkpoint is restored
    assert checkpoint.load(folder / BEST_CHECKPOINT).epoch >= 2


def test_a_changed_index_is_warned_about_when_a_run_is_resumed(
    data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index.csv"
    shutil.copy(data.index, index)
    config = config_of(data, data__index=index, model__freeze="layer4", augment__views=1, train__epochs=1)
    fit(config, tmp_path / "run", Display())
    text = index.read_text(encoding="utf-8")
    index.write_text(text.replace("00000,0,", "00000,1,"), encoding="utf-8")
    run_cli("fit", "--out", tmp_path / "run", "--resume", "--epochs", 2)
    assert "have changed since the run began" in " ".join(capsys.readouterr().err.split())
    assert "after epoch 1: another index" in checkpoint.load(tmp_path / "run" / LAST_CHECKPOINT).facts["changes"]


def test_weights_of_another_configuration_are_an_error_of_one_line(fitted: Path, tmp_path: Path) -> None:
    saved = checkpoint.load(fitted / BEST_CHECKPOINT)
    saved.config = saved.config.model_copy(
        update={"model": saved.config.model.model_copy(update={"architecture": "resnet50", "width": 1.0})}
    )
    with pytest.raises(CheckpointError, match="the weights do not fit the configuration beside them") as caught:
        saved.model()
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
