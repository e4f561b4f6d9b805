"""A model whose output differs from that at export is detected when it is loaded, and not used."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from binwatch import self_check
from binwatch.bundle import Bundle, Precision, make_variant, write_card
from binwatch.errors import BundleError
from binwatch.settings import DEFAULT_MODEL, PrecisionChoice, Provider
from testing.brightness import probabilities_of, write_brightness_bundle
from trainer.evaluation.onnx_model import OnnxModel, self_check_of
from worker.engine import Engine, SelfCheckResult


def _bundle(folder: Path, *precisions: Precision, wrong: tuple[Precision, ...] = ()) -> Bundle:
    """Write a brightness model in several variants; `wrong` ones see photos half as bright as in the card's self-check.

    They simulate an intact file on a machine that computes it incorrectly.
    """
    write_brightness_bundle(folder)
    source = folder / "model-int8.onnx"
    checked = self_check_of(OnnxModel(source))
    variants = {}
    for precision in precisions:
        path = folder / f"model-{precision}.onnx"
        if path != source:
            shutil.copy(source, path)
    for precision in precisions:
        path = folder / f"model-{precision}.onnx"
        if precision in wrong:
            model = onnx.load(path)
            scale = next(each for each in model.graph.initializer if each.name == "to_classes")
            scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(0.5), "to_classes"))
            onnx.save(model, path)
        variants[precision] = make_variant(path, self_check=checked)
    write_card(folder, Bundle(folder).card.model_copy(update={"variants": variants}))
    return Bundle(folder)


def _assert_right(engine: Engine) -> None:
    photos = np.stack([np.full((224, 224, 3), level, np.uint8) for level in (10, 120, 250)])
    expected = [probabilities_of(level) for level in (10, 120, 250)]
    np.testing.assert_allclose(engine.infer(photos).probabilities, expected, atol=1e-5)


def test_starter_model_passes_its_self_check() -> None:
    engine = Engine(Bundle(DEFAULT_MODEL), provider=Provider.CPU, threads=1)
    assert (engine.precision, engine.self_check) == (Precision.INT8, SelfCheckResult.PASSED)


def test_failing_int8_falls_back_to_fp32(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = _bundle(tmp_path, Precision.FP32, Precision.INT8, wrong=(Precision.INT8,))
    engine = Engine(bundle, provider=Provider.CPU, threads=1)
    assert (engine.precision, engine.self_check) == (Precision.FP32, SelfCheckResult.FELL_BACK)
    assert "its int8 variant cannot be used: " in caplog.text
    assert "model-int8.onnx: fails its self-check on CPUExecutionProvider: probabilities differ from" in caplog.text
    assert "brightness-1: counting with fp32 on CPUExecutionProvider instead" in caplog.text
    _assert_right(engine)


@pytest.mark.parametrize(
    ("precisions", "wrong", "choice"),
    [
        ([Precision.INT8], (Precision.INT8,), PrecisionChoice.AUTO),
        ([Precision.FP32, Precision.INT8], (Precision.INT8,), PrecisionChoice.INT8),
        ([Precision.FP32, Precision.INT8], (Precision.FP32, Precision.INT8), PrecisionChoice.AUTO),
    ],
    ids=["no other variant", "int8 by name", "fp32 fails, too"],
)
def test_failing_model_is_not_used(
    tmp_path: Path, precisions: list[Precision], wrong: tuple[Precision, ...], choice: PrecisionChoice
) -> None:
    bundle = _bundle(tmp_path, *precisions, wrong=wrong)
    with pytest.raises(BundleError, match=r"model-int8\.onnx: fails its self-check on CPU.*set BINWATCH_PRECISION to"):
        Engine(bundle, provider=Provider.CPU, precision=choice, threads=1)


def test_unloadable_variant_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """For example with the option for CPUs without VNNI, which ONNX Runtime refuses for some graphs."""
    bundle = _bundle(tmp_path, Precision.FP32, Precision.INT8)
    (tmp_path / "model-int8.onnx").write_bytes(b"no model")
    variants = bundle.card.variants | {Precision.INT8: make_variant(tmp_path / "model-int8.onnx")}
    write_card(tmp_path, bundle.card.model_copy(update={"variants": variants}))
    engine = Engine(Bundle(tmp_path), provider=Provider.CPU, threads=1)
    assert (engine.precision, engine.self_check) == (Precision.FP32, SelfCheckResult.FELL_BACK)
    assert "model-int8.onnx: ONNX Runtime cannot load it" in caplog.text


def test_bundle_without_self_check_is_used_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    engine = Engine(Bundle(write_brightness_bundle(tmp_path)), provider=Provider.CPU, threads=1)
    assert engine.self_check is SelfCheckResult.ABSENT
    assert (
        "brightness-1: its card has no self-check for int8, so it is used unchecked; python -m trainer" in caplog.text
    )
    _assert_right(engine)


def test_trainer_refuses_a_failing_model(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path, Precision.INT8, wrong=(Precision.INT8,))
    with pytest.raises(BundleError, match=r"model-int8\.onnx: fails its self-check on this CPU"):
        OnnxModel.from_bundle(bundle, Precision.INT8)


def test_self_check_photos_are_independent_of_the_batch(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path, Precision.INT8)
    engine = Engine(bundle, provider=Provider.CPU, threads=3, batch_size=2)
    assert engine.self_check is SelfCheckResult.PASSED
    assert len(self_check.make_photos(224)) > engine.batch_sizes[-1]
