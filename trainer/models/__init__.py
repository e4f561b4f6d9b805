"""The networks that can be trained."""

from __future__ import annotations

from torch import nn

from trainer.config import ModelConfig
from trainer.errors import ConfigError
from trainer.models.counter import Counter
from trainer.models.preact import PreActResNet50
from trainer.models.timm_backbone import TimmBackbone


def build(config: ModelConfig) -> Counter:
    """Build the configured network with random weights; see `weights.load_initial_weights`. Raises ConfigError."""
    if config.architecture == "resnet50v2":
        backbone: nn.Module = PreActResNet50(config.width, config.drop_path)
    elif config.width == 1:
        backbone = TimmBackbone(config.architecture, config.drop_path)
    else:
        raise ConfigError(
            f"model.width: only resnet50v2 has it, not {config.architecture}; take a smaller network, such as resnet18"
        )
    return Counter(backbone, config)
