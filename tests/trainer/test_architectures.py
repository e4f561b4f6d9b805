"""Export of every supported network and head: outputs of the exported files match torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from timm.layers import DropPath
from timm.models._efficientnet_blocks import InvertedResidual
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from binwatch.bundle import Precision
from binwatch.image import load_photo
from trainer.config import ModelConfig
from trainer.errors import ExportError
from trainer.evaluation.onnx_model import OnnxModel
from trainer.evaluation.temperature import softmax
from trainer.export import parity
from trainer.export.graph import write_onnx
from trainer.export.quantize import write_fp16, write_int8
from trainer.models import build
from trainer.models.counter import Counter
from trainer.models.weights import load_initial_weights

SAMPLES = Path(__file__).parents[2] / "samples" / "bin-images"
SIDE = 64
"""Input size with a twelfth of the pixels: the same graphs in less time."""


class Network(NamedTuple):
    """A network to export and the maximum size of its int8 file relative to fp32 (None: no int8, see NETWORKS)."""

    architecture: str
    head: str
    int8_share: float | None
    weights: str = "none"


NETWORKS = [
    Network("resnet50", "embedding", 0.27),
    Network("resnet50", "linear", 0.27),
    Network("resnet50", "capstone", 0.3),
    Network("vgg16", "capstone", 0.29),
    Network("convnext_atto", "embedding", 0.32),
    Network("tf_efficientnet_lite0", "embedding", 0.3, weights="imagenet"),
    Network("tf_efficientnetv2_b0", "linear", None),
]
"""Random weights do not say whether SiLU networks survive int8, and quantising one takes as long as all the rest."""


@pytest.fixture(scope="module")
def photos() -> npt.NDArray[np.uint8]:
    files = sorted(SAMPLES.glob("*.jpg"))[:16]
    return np.stack([load_photo(file.read_bytes(), size=SIDE).pixels for file in files])


def as_if_trained(model: Counter, photos: npt.NDArray[np.uint8], *, pretrained: bool = False) -> Counter:
    """Give a model the norm statistics of these photos, effective branches, and outputs that differ by photo.

    Fresh networks have branches of almost nothing and give every photo the same answer, which hides mistakes. With
    pretrained weights, only the answers need that.
    """
    for module in () if pretrained else model.train().modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.momentum = None  # keep the statistics of the next forward pass
            module.reset_running_stats()
        elif isinstance(module, BasicBlock):
            module.bn2.weight.data.fill_(1)  # timm initialises them with 0
        elif isinstance(module, Bottleneck | InvertedResidual):
            module.bn3.weight.data.fill_(
                0.2
            )  # at full strength, random branches amplify the rounding of half precision
        elif getattr(module, "gamma", None) is not None:  # ConvNeXt's layer scale
            module.gamma.data.fill_(0.5)
        elif isinstance(module, nn.Dropout | DropPath):
            module.eval()
    with torch.no_grad():
        model(torch.from_numpy(photos))
        logits, _ = model.eval()(torch.from_numpy(photos))
        last = model.head.classify
        assert isinstance(last, nn.Linear)
        spread = logits.std(dim=0).mean()
        last.weight /= spread
        last.bias.copy_((last.bias - logits.mean(dim=0)) / spread)
    return model


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: f"{network.architecture}-{network.head}")
def test_exported_outputs_match_torch(network: Network, photos: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = {"architecture": network.architecture, "head": network.head, "weights": network.weights, "highest": 5}
    model = build(ModelConfig.model_validate(config))
    pretrained = bool(load_initial_weights(model.backbone, network.weights))
    model = as_if_trained(model, photos, pretrained=pretrained)
    files = {precision: tmp_path / f"model-{precision}.onnx" for precision in Precision}
    write_onnx(model, 2.0, files[Precision.FP32], SIDE)
    write_fp16(files[Precision.FP32], files[Precision.FP16])
    if network.int8_share:
        write_int8(files[Precision.FP32], files[Precision.INT8], photos)
        assert files[Precision.INT8].stat().st_size < network.int8_share * files[Precision.FP32].stat().st_size
    else:
        del files[Precision.INT8]
    assert files[Precision.FP16].stat().st_size < 0.52 * files[Precision.FP32].stat().st_size

    with torch.inference_mode():
        logits, embedding = model(torch.from_numpy(photos))
    expected = softmax(logits.numpy(), 2.0)
    assert np.ptp(expected, axis=0).min() > 0.1  # outputs differ by photo, so errors in the graph show
    for precision, file in files.items():
        onnx.checker.check_model(str(file), full_check=True)
        result, vectors = OnnxModel(file, threads=2)(photos)
        assert result.dtype == vectors.dtype == np.float32
        assert vectors.shape == (len(photos), model.head.embedding_size)
        parity.check_batches(file, OnnxModel(file, threads=2), photos[:8])
        parity.check_outputs(file, precision, result, expected)
        alike = np.corrcoef(vectors.ravel(), embedding.numpy().ravel())[0, 1]
        assert alike > (0.95 if precision is Precision.INT8 else 0.999)  # random weights amplify the rounding of int8
    nodes = {node.op_type for node in onnx.load(files[Precision.FP32]).graph.node}
    assert not nodes & {"BatchNormalization", "Shape", "Gather", "Reshape"}  # folded; and no shapes to compute


def test_activations_beyond_half_precision_are_detected(photos: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    """Activations reach 200,000 between two convolutions and are normal after them; the weights are normal."""
    torch.manual_seed(0)
    model = as_if_trained(build(ModelConfig.model_validate({"architecture": "resnet18", "weights": "none"})), photos)
    block = model.backbone.get_submodule("layer2.0")
    with torch.no_grad():
        for tensor, factor in ((block.bn1.weight, 2e5), (block.bn1.bias, 2e5), (block.bn2.running_mean, 2e5)):
            tensor *= factor
        block.bn2.running_var *= 2e5**2
        expected = softmax(model(torch.from_numpy(photos))[0].numpy())
    write_onnx(model, 1.0, tmp_path / "fp32.onnx", SIDE)
    write_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    result, _ = OnnxModel(tmp_path / "fp32.onnx", threads=2)(photos)
    parity.check_outputs(tmp_path / "fp32.onnx", Precision.FP32, result, expected)
    result, _ = OnnxModel(tmp_path / "fp16.onnx", threads=2)(photos)
    with pytest.raises(
        ExportError, match=r"half precision cannot hold activations over 65,504.*leave fp16 out \(--variants\)"
    ):
        parity.check_outputs(tmp_path / "fp16.onnx", Precision.FP16, result, expected)
