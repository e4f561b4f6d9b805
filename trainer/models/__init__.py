"""The networks that can be trained, by name."""

from __future__ import annotations

from torch import nn

from trainer.config import ModelConfig
from trainer.errors import ConfigError
from trainer.models.counter import Counter
from trainer.models.preact import PreActResNet50
from trainer.models.timm_backbone import TimmBackbone


def build(config: ModelConfig) -> Counter:
    """The configured network with fresh weights; see `weights.start` for those to start from. Raises ConfigError."""
    return Counter(_backbone(config), config)


def _backbone(config: ModelConfig) -> nn.Module:
    if config.architecture == "resnet50v2":
        return PreActResNet50(config.width, config.drop_path)
    if config.width != 1:
        raise ConfigError(
            f"model.width: only resnet50v2 has it, not {config.architecture}; take a smaller network, such as resnet18"
        )
    return TimmBackbone(config.architecture, config.drop_path)
