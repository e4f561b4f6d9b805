"""Simplifies a network for inference: norms are folded into convolutions.

A pre-activation network normalises after each residual sum, where there is no convolution to fold the norm into. Such a
norm becomes a channel-wise 1×1 convolution, which int8 kernels compute without leaving int8. The norms of timm's
networks are folded by the exporter.
"""

from __future__ import annotations

import copy
from typing import cast

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from trainer.models.counter import Backbone
from trainer.models.preact import Block, PreActResNet50


class FoldedBlock(nn.Module):
    """A `Block` for inference: its three convolutions, and its first norm as a fourth convolution."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm = channelwise_conv(block.pre_bn1)
        self.conv1 = fuse_conv_bn_eval(block.conv1, block.pre_bn2)
        self.conv2 = fuse_conv_bn_eval(block.conv2, block.pre_bn3)
        self.conv3 = block.conv3
        self.downsample = block.downsample

    def forward(self, x: Tensor) -> Tensor:
        activated = functional.relu(self.norm(x))
        shortcut = x if self.downsample is None else self.downsample(activated)
        branch = functional.relu(self.conv2(functional.relu(self.conv1(activated))))
        total: Tensor = shortcut + self.conv3(branch)
        return total


def channelwise_conv(norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return a 1×1 convolution with one group per channel that is equivalent to a batch norm with fixed statistics."""
    identity = nn.Conv2d(norm.num_features, norm.num_features, 1, groups=norm.num_features, bias=False)
    nn.init.ones_(identity.weight)
    return fuse_conv_bn_eval(identity.eval(), norm)


def simplify(backbone: nn.Module) -> nn.Module:
    """Return an equivalent network for inference, as a sequence of layers. `backbone` itself is not modified."""
    if not isinstance(backbone, PreActResNet50):
        return nn.Sequential(*cast(Backbone, copy.deepcopy(backbone)).units().values()).eval()
    net = copy.deepcopy(backbone).eval()
    layers: list[nn.Module] = [net.input_bn, fuse_conv_bn_eval(net.conv1, net.stem_bn), nn.ReLU(), net.maxpool]
    layers += [FoldedBlock(unit) for unit in net.units().values() if isinstance(unit, Block)]
    return nn.Sequential(*layers, channelwise_conv(net.post_bn), nn.ReLU()).eval()
