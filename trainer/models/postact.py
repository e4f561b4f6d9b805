"""torchvision's ResNet50, whose ImageNet weights are the default where they can be downloaded."""

from __future__ import annotations

from torch import nn
from torchvision.models import resnet50


class TorchvisionResNet50(nn.Module):
    """Normalised photos, float (batch, 3, h, w) → feature maps, float (batch, 2048, h/32, w/32)."""

    def __init__(self) -> None:
        super().__init__()
        net = resnet50(weights=None)
        self.channels: int = net.fc.in_features
        for name, module in net.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, module)

    def units(self) -> dict[str, nn.Module]:
        """The network in order, in named steps: "stem", "layer1.0" … "layer4.2"."""
        stem = (self.get_submodule(name) for name in ("conv1", "bn1", "relu", "maxpool"))
        found: dict[str, nn.Module] = {"stem": nn.Sequential(*stem)}
        for stage in range(1, 5):
            for index, block in enumerate(self.get_submodule(f"layer{stage}").children()):
                found[f"layer{stage}.{index}"] = block
        return found
