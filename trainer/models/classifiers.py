"""torchvision's classifiers without their classifier, in named steps; their ImageNet weights can be downloaded."""

from __future__ import annotations

from typing import cast

from torch import nn
from torchvision.models import get_model

NAMES = ("resnet18", "resnet34", "resnet50", "vgg16", "efficientnet_v2_s", "convnext_tiny")


class Classifier(nn.Module):
    """Normalised photos, float (batch, 3, h, w) → feature maps, float (batch, channels, h/32, w/32).

    Parameters are named as torchvision names them, so that its weights fit.
    """

    channels: int

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def units(self) -> dict[str, nn.Module]:
        """The network in order, in named steps."""
        raise NotImplementedError


class ResNet(Classifier):
    """Units: "stem", "layer1.0" and so on, to "layer4.…"."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        net = get_model(name, weights=None)
        self.channels = net.fc.in_features
        for part, module in net.named_children():
            if part not in ("avgpool", "fc"):
                self.add_module(part, module)

    def units(self) -> dict[str, nn.Module]:
        stem = (self.get_submodule(name) for name in ("conv1", "bn1", "relu", "maxpool"))
        found: dict[str, nn.Module] = {"stem": nn.Sequential(*stem)}
        for stage in range(1, 5):
            for index, block in enumerate(self.get_submodule(f"layer{stage}").children()):
                found[f"layer{stage}.{index}"] = block
        return found


class Features(Classifier):
    """The networks whose layers are one sequence, `features`. Units: "features.0", "features.1" and so on.

    ConvNeXt has a norm between pooling and classifier, which its weights expect: it is the unit "last".
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        net = get_model(name, weights=None)
        self.features = net.features
        first = net.classifier[0]
        if name.startswith("convnext"):
            self.classifier = nn.Sequential(first)
        linear = next(module for module in net.classifier.modules() if isinstance(module, nn.Linear))
        # VGG's classifier sees 7×7 positions; here all networks are pooled to one.
        self.channels = linear.in_features // 49 if name.startswith("vgg") else linear.in_features

    def units(self) -> dict[str, nn.Module]:
        found = {f"features.{index}": step for index, step in enumerate(self.features.children())}
        if hasattr(self, "classifier"):
            found["last"] = cast(nn.Module, self.classifier)
        return found


def classifier(name: str) -> Classifier:
    """torchvision's network of this name, with fresh weights."""
    return ResNet(name) if name.startswith("resnet") else Features(name)
