from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_model

from trainer.config import ModelConfig
from trainer.errors import ConfigError, WeightsError
from trainer.export.simplify import simplified
from trainer.models import build
from trainer.models.counter import Counter, frozen_units
from trainer.models.weights import check_frozen, start

SMALL = ModelConfig(architecture="resnet50v2", weights="none", width=0.125)
UNITS = ["stem", "layer1.0", "layer1.1", "layer2.0", "last"]


def photos(count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def unlike_new(model: Counter) -> Counter:
    """Norms with statistics and scales of their own, as after training: fresh ones would hide mistakes."""
    random = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=random)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1, generator=random)
    return model.eval()


def test_frozen_units() -> None:
    assert frozen_units(UNITS, "") == []
    assert frozen_units(UNITS, "layer1") == ["stem", "layer1.0", "layer1.1"]
    assert frozen_units(UNITS, "layer1.0") == ["stem", "layer1.0"]
    assert frozen_units(UNITS, "stem") == ["stem"]
    with pytest.raises(ConfigError, match=r"no unit 'layer9'; choose one of stem, layer1\.0"):
        frozen_units(UNITS, "layer9")


CLASSIFIERS = {"resnet18": 512, "resnet34": 512, "vgg16": 512, "efficientnet_v2_s": 1280, "convnext_tiny": 768}


@pytest.mark.parametrize(("architecture", "channels"), CLASSIFIERS.items())
def test_torchvisions_classifiers(architecture: str, channels: int, tmp_path: Path) -> None:
    config = ModelConfig.model_validate({"architecture": architecture, "weights": "none"})
    model = build(config).eval()
    names = list(model.backbone.units())
    with torch.inference_mode():
        logits, embedding = model(photos())
        assert model.features(photos()).shape == (2, 3, 64, 64)  # nothing frozen: normalised photos
        pooled = simplified(model.backbone)(model.normalise(photos())).mean(dim=(2, 3))
    assert logits.shape == (2, 7)
    assert embedding.shape == (2, 64)
    assert pooled.shape == (2, channels)
    assert set(names) == set(frozen_units(names, names[-1]))
    torch.save(get_model(architecture, weights=None).state_dict(), tmp_path / "own.pt")
    loaded = start(model.backbone, str(tmp_path / "own.pt"))  # torchvision's names are ours
    assert set(loaded) == set(model.backbone.state_dict())


@pytest.mark.parametrize(("head", "size"), [("embedding", 64), ("linear", 2048), ("capstone", 256)])
def test_heads(head: str, size: int) -> None:
    model = build(ModelConfig.model_validate({"architecture": "resnet50", "weights": "none", "head": head}))
    assert model.head.size == size
    logits, embedding = model.head(torch.rand(2, 2048, 2, 2))
    assert logits.shape == (2, 7)
    assert embedding.shape == (2, size)


def test_the_preactivation_network_has_no_weights_to_download() -> None:
    with pytest.raises(WeightsError, match=r"no ImageNet weights for this network; give their path as model\.weights"):
        start(build(SMALL).backbone, "imagenet")


@pytest.mark.parametrize("architecture", ["resnet50", "resnet50v2"])
def test_a_resnet50_has_sixteen_blocks_and_2048_channels(architecture: str) -> None:
    model = build(ModelConfig.model_validate({"architecture": architecture}))
    blocks = [name for name in model.backbone.units() if name.startswith("layer")]
    assert blocks[0] == "layer1.0"
    assert blocks[-1] == "layer4.2"
    assert len(blocks) == 16
    assert model.head.embed.in_features == 2048
    assert 23e6 < sum(parameter.numel() for parameter in model.backbone.parameters()) < 24e6


def test_features_and_the_rest_are_the_whole() -> None:
    model = unlike_new(build(SMALL.model_copy(update={"freeze": "layer3.2"})))
    with torch.inference_mode():
        features = model.features(photos())
        assert features.shape == (2, 128, 4, 4)
        whole, embedding = model(photos())
        parts, _ = model.from_features(features)
    assert torch.equal(whole, parts)
    assert whole.shape == (2, 7)
    assert embedding.shape == (2, 64)


def test_the_frozen_part_does_not_learn() -> None:
    model = build(SMALL.model_copy(update={"freeze": "layer2"})).train()
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "backbone.conv1.weight" not in learning
    assert "backbone.layer2.3.conv3.weight" not in learning
    assert {"backbone.layer3.0.conv1.weight", "head.embed.weight", "backbone.post_bn.weight"} <= learning
    assert not model.backbone.layer2[3].training
    assert model.backbone.layer3[0].training
    before = model.backbone.layer1[0].pre_bn1.running_mean.clone()
    model(photos(4))
    assert torch.equal(before, model.backbone.layer1[0].pre_bn1.running_mean)


@pytest.mark.parametrize("architecture", ["resnet50", "resnet50v2"])
def test_simplified_is_the_same_function(architecture: str) -> None:
    config = SMALL.model_copy(update={"architecture": architecture})
    model = unlike_new(build(config))
    with torch.inference_mode():
        x = model.normalise(photos())
        wanted = x
        for step in model.backbone.units().values():
            wanted = step(wanted)
        found = simplified(model.backbone)(x)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_simplified_network_has_no_norms_but_the_first() -> None:
    norms = [module for module in simplified(build(SMALL).backbone).modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [3]


def test_stochastic_depth_keeps_the_mean() -> None:
    block = build(SMALL.model_copy(update={"drop_path": 0.5})).backbone.layer4[2].train()
    torch.manual_seed(0)
    kept = block._sometimes(torch.ones(10_000, 1, 1, 1))
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert float(kept.mean()) == pytest.approx(1, abs=0.05)


def test_weights_from_arrays(tmp_path: Path) -> None:
    source = unlike_new(build(SMALL))
    state = {name: value.numpy() for name, value in source.backbone.state_dict().items()}
    lower = {name: value.astype(np.float16) for name, value in state.items() if name.startswith(("conv1", "layer1"))}
    np.savez(tmp_path / "lower.npz", **lower)
    model = build(SMALL)
    loaded = start(model.backbone, str(tmp_path / "lower.npz"))
    assert "layer1.2.conv3.weight" in loaded
    assert not any(name.startswith("layer2") for name in loaded)
    torch.testing.assert_close(
        model.backbone.layer1[0].conv2.weight, source.backbone.layer1[0].conv2.weight, rtol=1e-3, atol=1e-3
    )


def test_layers_cannot_be_frozen_without_their_weights(tmp_path: Path) -> None:
    """What lies beyond the file would stay as it began: random."""
    state = build(SMALL).backbone.state_dict()
    np.savez(tmp_path / "w.npz", **{name: value for name, value in state.items() if not name.startswith("layer2.3")})
    frozen = SMALL.model_copy(update={"weights": str(tmp_path / "w.npz"), "freeze": "layer2"})
    model = build(frozen)
    loaded = start(model.backbone, frozen.weights)
    with pytest.raises(
        WeightsError, match=r"w\.npz: has no weights for layer2\.3, which model\.freeze=layer2 would keep"
    ):
        check_frozen(model, loaded, frozen)
    fewer = frozen.model_copy(update={"freeze": "layer2.2"})
    check_frozen(build(fewer), start(build(fewer).backbone, fewer.weights), fewer)
    none = frozen.model_copy(update={"weights": "none"})
    check_frozen(build(none), [], none)


def test_statistics_of_norms_are_weights_too(tmp_path: Path) -> None:
    state = build(SMALL).backbone.state_dict()
    del state["stem_bn.running_mean"]
    torch.save(state, tmp_path / "w.pt")
    frozen = SMALL.model_copy(update={"weights": str(tmp_path / "w.pt"), "freeze": "stem"})
    model = build(frozen)
    with pytest.raises(WeightsError, match="has no weights for stem, which"):
        check_frozen(model, start(model.backbone, frozen.weights), frozen)


def test_a_file_without_any_weights_of_the_network(tmp_path: Path) -> None:
    np.savez(tmp_path / "head.npz", **{"fc.weight": np.zeros((7, 4))})
    with pytest.raises(WeightsError, match=r"head\.npz: holds no weights of this network"):
        start(build(SMALL).backbone, str(tmp_path / "head.npz"))


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    torch.save(build(ModelConfig()).backbone.state_dict(), tmp_path / "v1.pt")
    with pytest.raises(WeightsError, match=r"v1\.pt: .* another architecture"):
        start(build(ModelConfig(architecture="resnet50v2")).backbone, str(tmp_path / "v1.pt"))


def test_weights_that_cannot_be_read(tmp_path: Path) -> None:
    backbone = build(SMALL).backbone
    with pytest.raises(WeightsError, match=r"no such file; model\.weights is imagenet, none, or"):
        start(backbone, str(tmp_path / "none.npz"))
    (tmp_path / "bad.npz").write_bytes(b"bad")
    with pytest.raises(WeightsError, match="is not a NumPy archive of arrays"):
        start(backbone, str(tmp_path / "bad.npz"))
    (tmp_path / "bad.pt").write_bytes(b"bad")
    with pytest.raises(WeightsError, match="is not a file of weights"):
        start(backbone, str(tmp_path / "bad.pt"))


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", conv1=np.array([{"a": 1}], dtype=object))
    with pytest.raises(WeightsError, match="is not a NumPy archive of arrays"):
        start(build(SMALL).backbone, str(tmp_path / "evil.npz"))
