"""ResNet50-v2: the pre-activation ResNet of He et al. 2016 (arXiv 1603.05027), with the layout of the ONNX model zoo's
`resnet50-v2-7` (GluonCV), so that it can load its ImageNet weights.

Each block normalises before its convolutions. The input of the shortcut's 1×1 convolution is the output of the first
norm, and the stride is in the 3×3 convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""(bottleneck width, blocks, stride of the first block) of layer1 to layer4 of a ResNet50."""
EXPANSION = 4
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of RGB in 0 to 1."""


class Block(nn.Module):
    """Pre-activation bottleneck: three times norm, ReLU and convolution. The sum with the shortcut is not normalised.

    `drop` is the probability that a photo skips the residual branch in training (stochastic depth).
    """

    def __init__(self, inputs: int, width: int, stride: int, drop: float) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.drop = drop
        self.pre_bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.pre_bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.pre_bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        preactivation = functional.relu_(self.pre_bn1(x))
        shortcut = x if self.downsample is None else self.downsample(preactivation)
        branch = self.conv1(preactivation)
        branch = self.conv2(functional.relu_(self.pre_bn2(branch)))
        branch = self.conv3(functional.relu_(self.pre_bn3(branch)))
        if self.training and self.drop > 0:
            branch = stochastic_depth(branch, self.drop)
        output: Tensor = shortcut + branch
        return output


def stochastic_depth(branch: Tensor, drop: float) -> Tensor:
    """Set a residual branch, (batch, channels, h, w), to 0 for each photo with probability `drop`.

    Branches that are kept are scaled up, so that the mean stays the same.
    """
    keep = torch.rand(branch.shape[0], 1, 1, 1, device=branch.device) >= drop
    return branch * (keep / (1.0 - drop)).to(branch.dtype)


class PreActResNet50(nn.Module):
    """Normalised photos, float (batch, 3, h, w) → feature maps, float (batch, channels, h/32, w/32).

    `width` scales the channels (for tests). `drop` is the stochastic depth rate of the last block; the rates of
    earlier blocks are smaller, in proportion to their depth.
    """

    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    def __init__(self, width: float = 1.0, drop: float = 0.0) -> None:
        super().__init__()
        channels = int(STAGES[0][0] * width)
        self.input_bn = nn.BatchNorm2d(3)
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.stem_bn = nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        depth = 0
        total_depth = sum(blocks for _, blocks, _ in STAGES)
        for stage, (bottleneck, blocks, stride) in enumerate(STAGES, start=1):
            layer = nn.Sequential()
            for index in range(blocks):
                depth += 1
                layer.append(
                    Block(channels, int(bottleneck * width), stride if index == 0 else 1, drop * depth / total_depth)
                )
                channels = int(bottleneck * width) * EXPANSION
            self.add_module(f"layer{stage}", layer)
        self.post_bn = nn.BatchNorm2d(channels)
        self.channels = channels

    def units(self) -> dict[str, nn.Module]:
        """Return name → unit, in the order of computation: "stem", "layer1.0" … "layer4.2", "last"."""
        units: dict[str, nn.Module] = {
            "stem": nn.Sequential(self.input_bn, self.conv1, self.stem_bn, nn.ReLU(inplace=True), self.maxpool)
        }
        for stage in range(1, len(STAGES) + 1):
            for index, block in enumerate(self.get_submodule(f"layer{stage}").children()):
                units[f"layer{stage}.{index}"] = block
        units["last"] = nn.Sequential(self.post_bn, nn.ReLU(inplace=True))
        return units
