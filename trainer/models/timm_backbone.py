"""timm's convolutional networks without pooling and classifier, divided into named units."""

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

PROBE_SIZE = 64
"""Side, in pixels, of the input with which the order of a network's layers is determined."""


class TimmBackbone(nn.Module):
    """Normalised photos, float (batch, 3, h, w) → feature maps, float (batch, channels, h', w').

    Parameters have timm's names (for ResNets and VGG these are torchvision's), so that their weights fit. Units are the
    layers in the order of computation, with nn.Sequential flattened: "layer1.0" of a ResNet, "blocks.3.1" of
    an EfficientNet, "stages.2" of a ConvNeXt. The network's weights expect input normalised by `mean` and `std` of RGB
    in 0 to 1. Raises ConfigError if timm has no such network, or if it is not a sequence of layers that ends in feature
    maps.
    """

    def __init__(self, name: str, drop_path: float = 0.0) -> None:
        super().__init__()
        self.name = name
        network = create_timm_network(name, drop_path)
        self.channels = cast(int, network.num_features)
        config = cast(dict[str, Any], network.pretrained_cfg)
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        for layer in _feature_layers(name, network):
            self.add_module(layer, network.get_submodule(layer))
        # ConvNeXt's last norm is part of its classifier, after the pooling.
        norm = getattr(getattr(network, "head", None), "norm", None)
        if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity):
            self.head = nn.Sequential(OrderedDict(norm=norm))

    def units(self) -> dict[str, nn.Module]:
        """Return name → unit, in the order of computation."""
        return {unit: module for name, layer in self.named_children() for unit, module in _flatten(name, layer)}


def create_timm_network(name: str, drop_path: float = 0.0, *, pretrained: bool = False) -> nn.Module:
    """Create timm's network `name`, without a classifier where timm supports that. Raises ConfigError."""
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


def _feature_layers(name: str, network: nn.Module) -> list[str]:
    """Return the layers that compute the feature maps, in order. Raises ConfigError if they are not a sequence.

    The output of the sequence is compared with the network's, because a network may compute something between its
    layers, such as adding a position embedding.
    """
    network_copy = copy.deepcopy(network).eval()
    called: list[str] = []
    for layer, module in network_copy.named_children():
        module.register_forward_hook(lambda *_, layer=layer: called.append(layer))
    photo = torch.rand(1, 3, PROBE_SIZE, PROBE_SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            expected: Tensor = network_copy.forward_features(photo.clone())  # type: ignore[operator]
            output, order = photo.clone(), list(called)
            for layer in order:
                output = network_copy.get_submodule(layer)(output)
        except (AssertionError, RuntimeError, TypeError) as error:
            raise _unsupported(name) from error
    if expected.ndim != 4 or expected.shape[1] != network.num_features or not torch.equal(output, expected):
        raise _unsupported(name)
    return order


def _unsupported(name: str) -> ConfigError:
    return ConfigError(
        f"model.architecture: {name} is not a plain sequence of layers that ends in feature maps (no transformer is);"
        " take a convolutional network such as resnet50, tf_efficientnet_lite0 or convnext_tiny"
    )


def _flatten(name: str, layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of an nn.Sequential, recursively; any other layer unchanged."""
    if type(layer) is nn.Sequential:
        for part, module in layer.named_children():
            yield from _flatten(f"{name}.{part}", module)
    else:
        yield name, layer
