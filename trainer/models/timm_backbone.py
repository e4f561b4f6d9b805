"""timm's convolutional networks without pooling and classifier, in named steps."""

from __future__ import annotations

import copy
import difflib
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from trainer.errors import ConfigError

PROBE = 64
"""Side of the photo with which the order of a network's layers is found."""


class TimmBackbone(nn.Module):
    """Normalised photos, float (batch, 3, h, w) → feature maps, float (batch, channels, h', w').

    Parameters are named as timm names them (for ResNets and VGG as torchvision does), so that their weights fit. Units
    are the layers in the order of computation, containers taken apart: "layer1.0" of a ResNet, "blocks.3.1" of an
    EfficientNet, "stages.2" of a ConvNeXt. `mean` and `std` are of RGB in 0 to 1, as the weights of this network expect
    it. Raises ConfigError if timm has no such network, or if it is no plain sequence of layers that ends in maps.
    """

    def __init__(self, name: str, drop_path: float = 0.0) -> None:
        super().__init__()
        self.name = name
        network = create(name, drop_path)
        self.channels = cast(int, network.num_features)
        config = cast(dict[str, Any], network.pretrained_cfg)
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        for layer in _layers(name, network):
            self.add_module(layer, network.get_submodule(layer))
        # ConvNeXt's last norm stands in its classifier, behind the pooling.
        norm = getattr(getattr(network, "head", None), "norm", None)
        if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity):
            self.head = nn.Sequential(OrderedDict(norm=norm))

    def units(self) -> dict[str, nn.Module]:
        """Name → step, in the order of computation."""
        return {unit: step for name, layer in self.named_children() for unit, step in _apart(name, layer)}


def create(name: str, drop_path: float = 0.0, *, pretrained: bool = False) -> nn.Module:
    """timm's network, without pooling and classifier where it can be had so. Raises ConfigError if there is none."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean {close[0]}?" if close else "timm.list_models() lists them"
        raise ConfigError(f"model.architecture: timm has no network {name!r}; {hint}")
    options: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0}
    try:
        network: nn.Module = timm.create_model(name, **options, drop_path_rate=drop_path)
    except TypeError:  # not every network has stochastic depth
        network = timm.create_model(name, **options)
    return network


def _layers(name: str, network: nn.Module) -> list[str]:
    """The layers that make the feature maps, in the order of computation. Raises ConfigError if they are no sequence.

    Of a network that adds, say, a position between two of its layers, the layers alone would be another network: the
    answers are compared.
    """
    own = copy.deepcopy(network).eval()
    called: list[str] = []
    for layer, module in own.named_children():
        module.register_forward_hook(lambda *_, layer=layer: called.append(layer))
    photo = torch.rand(1, 3, PROBE, PROBE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            wanted: Tensor = own.forward_features(photo.clone())  # type: ignore[operator]
            found, order = photo.clone(), list(called)
            for layer in order:
                found = own.get_submodule(layer)(found)
        except (AssertionError, RuntimeError, TypeError) as error:
            raise _unfit(name) from error
    if wanted.ndim != 4 or wanted.shape[1] != network.num_features or not torch.equal(found, wanted):
        raise _unfit(name)
    return order


def _unfit(name: str) -> ConfigError:
    return ConfigError(
        f"model.architecture: {name} is not a plain sequence of layers that ends in feature maps (no transformer is);"
        " take a convolutional network such as resnet50, tf_efficientnet_lite0 or convnext_tiny"
    )


def _apart(name: str, layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A sequence's parts, and theirs; anything else as it is."""
    if type(layer) is nn.Sequential:
        for part, module in layer.named_children():
            yield from _apart(f"{name}.{part}", module)
    else:
        yield name, layer
