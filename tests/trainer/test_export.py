"""Export of a checkpoint as a bundle, and evaluation of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from binwatch.bundle import Bundle, Precision, sha256_of
from binwatch.counts import CountRule
from binwatch.settings import PrecisionChoice, Provider
from tests.trainer.drawn import Data, run_cli
from trainer.data.dataset import load_dataset
from trainer.data.split import Split
from trainer.errors import ExportError
from trainer.evaluation.onnx_model import OnnxModel
from trainer.evaluation.temperature import softmax
from trainer.export import parity
from trainer.train import checkpoint
from trainer.train.run_files import BEST_CHECKPOINT
from worker.engine import Engine, SelfCheckResult

LOOSE_TOLERANCE = 0.5
"""Of 18 validation photos, one is 6 percentage points, so the default tolerance of half a point is too small."""


@pytest.fixture(scope="session")
def bundle(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("export") / "bundle"
    run_cli(
        "export", fitted / BEST_CHECKPOINT, "--out", folder, "--variants", "int8,fp32,fp16", "--version", "v1",
        "--note", "Drawn.", "--max-loss", LOOSE_TOLERANCE,
    )  # fmt: skip
    return Bundle(folder)


def test_count_rule_may_be_the_median(fitted: Path, bundle: Bundle, tmp_path: Path) -> None:
    run_cli("export", fitted / BEST_CHECKPOINT, "--out", tmp_path / "b", "--variants", "fp32", "--count-rule", "median")
    card, by_mode = Bundle(tmp_path / "b").card, bundle.card.metrics
    assert (card.count_rule, bundle.card.count_rule) == (CountRule.MEDIAN, CountRule.MODE)
    assert card.metrics["test (mode)"].confusion == by_mode["test"].confusion
    assert card.metrics["test"].confusion == by_mode["test (median)"].confusion
    assert card.metrics["test"].mae == card.metrics["test"].mae_of_median
    assert card.metrics["test 0-5 (challenge)"].confusion == by_mode["test 0-5 (challenge)"].confusion


def test_card_contains_metrics_and_training_facts(bundle: Bundle) -> None:
    card = bundle.card
    assert card.version == "v1"
    assert card.architecture == "resnet50v2"
    assert card.embedding_size == 64
    assert set(card.variants) == {Precision.FP32, Precision.FP16, Precision.INT8}
    drawn, temperature, reference = card.notes
    assert drawn == "Drawn."
    assert f"The temperature {card.temperature:.2f} was fitted to 18 validation photos" in temperature
    assert reference == "The drift reference is of 9 bins: drift is judged with 100 or more."
    assert list(card.metrics) == [
        "test", "test 0-5", "test 0-5 (challenge)", "test 1-5 (challenge)", "test (median)"
    ]  # fmt: skip
    assert card.metrics["test"].photos == 10
    assert card.training["data"]["photos"]["train"] == 132
    assert card.training["config"]["data"]["photos"] == "photos"  # no path of the training machine
    assert card.reference is not None
    assert sum(card.reference.predicted) == sum(card.reference.labels) == card.reference.photos == 18
    assert card.reference.groups == 9
    assert set(card.reference.quantiles) == {"confidence", "brightness", "contrast", "sharpness"}
    assert card.reference.embedding is not None
    assert len(card.reference.embedding.mean) == 64


def test_bundle_contains_exactly_the_files_of_the_card(bundle: Bundle) -> None:
    assert {file.name for file in bundle.folder.iterdir()} == {
        "card.json", "model-fp32.onnx", "model-fp16.onnx", "model-int8.onnx"
    }  # fmt: skip
    for precision, variant in bundle.card.variants.items():
        assert sha256_of(bundle.model_path(precision)) == variant.sha256
        assert variant.metrics["photos_per_second"] > 0
        assert 0 <= variant.metrics["test"]["accuracy"]["value"] <= 1
    assert bundle.card.variants[Precision.INT8].bytes < 0.5 * bundle.card.variants[Precision.FP32].bytes


@pytest.mark.parametrize("precision", list(Precision))
def test_self_check_equals_that_of_workers(bundle: Bundle, precision: Precision) -> None:
    engine = Engine(bundle, provider=Provider.CPU, precision=PrecisionChoice(precision.value), threads=1)
    assert engine.self_check is SelfCheckResult.PASSED


def test_files_do_not_name_local_folders(bundle: Bundle) -> None:
    for precision in bundle.card.variants:
        model = bundle.model_path(precision).read_bytes()
        assert b"stack_trace" not in model
        assert str(Path.cwd()).encode() not in model


@pytest.mark.parametrize("batch", [1, 7])
def test_onnx_outputs_equal_torch_outputs(bundle: Bundle, fitted: Path, batch: int) -> None:
    saved = checkpoint.load(fitted / BEST_CHECKPOINT)
    pixels = load_dataset(saved.config.data)[Split.TEST].pixels(range(batch))
    with torch.inference_mode():
        logits, embedding = saved.model()(torch.from_numpy(pixels))
    expected = softmax(logits.numpy(), bundle.card.temperature)
    result, vectors = OnnxModel(bundle.model_path(Precision.FP32))(pixels)
    assert result.dtype == vectors.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_allclose(vectors, embedding.numpy(), atol=1e-4)
    for precision, atol in ((Precision.FP16, 5e-3), (Precision.INT8, 5e-2)):
        result, vectors = OnnxModel(bundle.model_path(precision))(pixels)
        assert result.dtype == vectors.dtype == np.float32
        assert vectors.shape == (batch, 64)
        np.testing.assert_allclose(result, expected, atol=atol)


def test_failed_check_leaves_no_bundle(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli_error: Callable[..., str]
) -> None:
    monkeypatch.setitem(parity.TOLERANCES, Precision.FP32, parity.Tolerance(largest=0, mean=0))
    message = cli_error("export", fitted / BEST_CHECKPOINT, "--out", tmp_path / "b", "--variants", "fp32")
    assert message.startswith("error: model-fp32.onnx: probabilities are up to ")
    assert list(tmp_path.iterdir()) == []


def test_lack_of_disk_space_is_reported_before_the_export(
    fitted: Path, small_disk: Path, cli_error: Callable[..., str]
) -> None:
    message = cli_error("export", fitted / BEST_CHECKPOINT, "--out", small_disk / "b")
    assert f"{small_disk}: the files need about 3." in message
    assert message.endswith(" MB and 0.2 MB are free; make room or choose another --out")


def test_outputs_beyond_the_tolerance_are_an_error() -> None:
    expected = np.full((4, 7), 1 / 7)
    assert parity.check_outputs(Path("m"), Precision.FP32, expected, expected)["largest_difference"] == 0
    far = expected.copy()
    far[0, :2] += [0.01, -0.01]
    with pytest.raises(ExportError, match=r"up to 0\.01 .* fp32 may differ by 0\.001"):
        parity.check_outputs(Path("m"), Precision.FP32, far, expected)
    with pytest.raises(ExportError, match="do not sum to 1"):
        parity.check_outputs(Path("m"), Precision.INT8, expected * 2, expected)


def test_loss_of_accuracy_is_limited() -> None:
    labels = np.arange(200) % 7
    expected = np.eye(7)[labels]
    result = expected.copy()
    result[0] = np.eye(7)[1]
    assert parity.check_accuracy(Path("m"), result, expected, labels) == pytest.approx(1 / 200)
    result[7] = np.eye(7)[1]
    with pytest.raises(
        ExportError, match=r"99\.00% of 200 validation photos right, .* network 100\.00%; at most 0\.5%"
    ):
        parity.check_accuracy(Path("m"), result, expected, labels)
    assert parity.check_accuracy(Path("m"), expected, result, labels) < 0  # an improvement is accepted


def test_outputs_that_depend_on_the_batch_size_are_an_error() -> None:
    class Fixed:
        def __call__(self, photos):  # type: ignore[no-untyped-def]
            return np.full((len(photos), 7), 1 / len(photos)), None

    with pytest.raises(ExportError, match="probabilities in batches of 1 differ by"):
        parity.check_batches(Path("m"), Fixed(), np.zeros((8, 2, 2, 3), np.uint8))  # type: ignore[arg-type]


def test_unknown_variant_is_an_error(fitted: Path, tmp_path: Path, cli_error: Callable[..., str]) -> None:
    message = cli_error("export", fitted / BEST_CHECKPOINT, "--out", tmp_path / "b", "--variants", "fp32,int4")
    assert message == "error: --variants fp32,int4: 'int4' is not a valid Precision; choose from fp32, fp16, int8"


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_file_that_is_not_a_checkpoint_is_an_error(
    command: str, data: Data, tmp_path: Path, cli_error: Callable[..., str]
) -> None:
    """The error is one line, although torch's own has many."""
    flags = ["--out", tmp_path / "b"] if command == "export" else []
    message = cli_error(command, data.index, *flags)
    expected = "is not a checkpoint, or is damaged; give a best.pt or last.pt that fit has written"
    assert message == f"error: {data.index}: {expected}"


def test_checkpoint_and_bundle_have_the_same_metrics(
    fitted: Path, bundle: Bundle, data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli("evaluate", fitted / BEST_CHECKPOINT, "--out", tmp_path / "a.json")
    run_cli("evaluate", bundle.folder, "--variant", "fp32", *data.flags, "--out", tmp_path / "b.json")
    of_checkpoint, of_bundle = (
        json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in ("a.json", "b.json")
    )
    assert of_checkpoint["split"] == "test"
    assert of_checkpoint["data"]["photos"]["test"] == 10
    for figure in ("accuracy", "rmse", "mae", "within_one", "confusion"):  # the temperature changes no count
        assert of_checkpoint["metrics"]["test"][figure] == of_bundle["metrics"]["test"][figure]
    assert of_bundle["metrics"]["test"] == bundle.card.metrics["test"].model_dump(mode="json")
    printed = capsys.readouterr().out
    assert "accuracy, %" in printed
    assert "(challenge)" in printed


def test_evaluating_a_bundle_needs_photos(bundle: Bundle, cli_error: Callable[..., str]) -> None:
    assert "the photos that it was trained on are not known" in cli_error("evaluate", bundle.folder)


def test_evaluation_is_written_beside_the_checkpoint(fitted: Path) -> None:
    run_cli("evaluate", fitted / BEST_CHECKPOINT, "--split", "validation")
    result = json.loads((fitted / "evaluation" / "validation.json").read_text(encoding="utf-8"))
    assert result["metrics"]["validation"]["photos"] == 18


@pytest.mark.parametrize("gpus", [0, 1])
def test_gpu_model_is_exported_on_the_cpu(
    gpus: int, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is traced on the device of its example photos, even if there is a GPU."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    saved = checkpoint.load(fitted / BEST_CHECKPOINT)
    train = saved.config.train.model_copy(update={"device": "cuda"})
    saved.config = saved.config.model_copy(update={"train": train})
    checkpoint.save(tmp_path / BEST_CHECKPOINT, saved)
    run_cli("export", tmp_path / BEST_CHECKPOINT, "--out", tmp_path / "bundle", "--variants", "fp32")
    assert Bundle(tmp_path / "bundle").card.training["config"]["train"]["device"] == "cuda"


def test_probabilities_are_corrected_to_the_class_shares(fitted: Path, data: Data, tmp_path: Path) -> None:
    """The correction replaces the training photos' shares; here bins with more items are more common."""
    saved = checkpoint.load(fitted / BEST_CHECKPOINT)
    shares = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    saved.config = saved.config.model_copy(
        update={"data": saved.config.data.model_copy(update={"class_shares": shares})}
    )
    checkpoint.save(tmp_path / BEST_CHECKPOINT, saved)
    run_cli(
        "export",
        tmp_path / BEST_CHECKPOINT,
        "--out",
        tmp_path / "moved",
        "--variants",
        "fp32",
        "--max-loss",
        LOOSE_TOLERANCE,
    )
    bundle = Bundle(tmp_path / "moved")
    test = load_dataset(saved.config.data)[Split.TEST]
    pixels = test.pixels(range(len(test)))
    with torch.inference_mode():
        logits = saved.model()(torch.from_numpy(pixels))[0].numpy()
    trained = np.array(saved.facts["data"]["labels"]["train"])
    assert trained.sum() == 132
    ratios = (np.array(shares) / 28) / (trained / 132)
    ratios = np.append(ratios, [ratios[-1]] * (logits.shape[1] - 7))  # all quantities beyond 5 have the same ratio
    expected = softmax(logits, bundle.card.temperature) * ratios
    expected /= expected.sum(axis=1, keepdims=True)
    result = OnnxModel(bundle.model_path(Precision.FP32))(pixels)[0]
    np.testing.assert_allclose(result, expected, atol=1e-4)
    assert "shares of bins by number of items: 0: 3.6%, 1: 7.1%, 2: 10.7%," in " ".join(bundle.card.notes)
