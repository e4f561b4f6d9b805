"""An equivalent network with fewer steps: norms are folded into convolutions.

A pre-activation network normalises after each residual sum, where there is no convolution to fold the norm into. Such a
norm becomes a 1×1 convolution of each channel by itself, which int8 kernels compute without leaving int8. The norms of
timm's networks are folded by the exporter.
"""

from __future__ import annotations

import copy
from typing import cast

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trainer.models.counter import Backbone
from trainer.models.preact import Block, PreActResNet50


class Folded(nn.Module):
    """A `Block` for inference: three convolutions with bias, and the first norm as a fourth."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm = channelwise(block.pre_bn1)
        self.conv1 = fuse_conv_bn_eval(block.conv1, block.pre_bn2)
        self.conv2 = fuse_conv_bn_eval(block.conv2, block.pre_bn3)
        self.conv3 = block.conv3
        self.downsample = block.downsample

    def forward(self, x: Tensor) -> Tensor:
        first = functional.relu(self.norm(x))
        shortcut = x if self.downsample is None else self.downsample(first)
        branch = functional.relu(self.conv2(functional.relu(self.conv1(first))))
        total: Tensor = shortcut + self.conv3(branch)
        return total


def channelwise(norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A batch norm (with fixed statistics) as a 1×1 convolution with one group per channel."""
    same = nn.Conv2d(norm.num_features, norm.num_features, 1, groups=norm.num_features, bias=False)
    nn.init.ones_(same.weight)
    return fuse_conv_bn_eval(same.eval(), norm)


def simplify(backbone: nn.Module) -> nn.Module:
    """An equivalent network for inference, as a sequence of steps. `backbone` itself is left as it is."""
    if not isinstance(backbone, PreActResNet50):
        return nn.Sequential(*cast(Backbone, copy.deepcopy(backbone)).units().values()).eval()
    own = copy.deepcopy(backbone).eval()
    steps: list[nn.Module] = [own.input_bn, fuse_conv_bn_eval(own.conv1, own.stem_bn), nn.ReLU(), own.maxpool]
    steps += [Folded(step) for step in own.units().values() if isinstance(step, Block)]
    return nn.Sequential(*steps, channelwise(own.post_bn), nn.ReLU()).eval()
