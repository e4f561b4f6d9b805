"""Heads: feature maps → logits and embedding. They replace the classifier of a pretrained network."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from trainer.config import ModelConfig


class Head(nn.Module):
    """Feature maps (batch, channels, h, w) → logits (batch, quantities) and embedding (batch, size)."""

    size: int

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class Embedding(Head):
    """A small embedding, then the quantities."""

    def __init__(self, channels: int, embedding: int, dropout: float, quantities: int) -> None:
        super().__init__()
        self.size = embedding
        self.before = nn.Dropout(dropout)
        self.embed = nn.Linear(channels, embedding)
        self.classify = nn.Linear(embedding, quantities)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled = features.mean(dim=(2, 3))
        embedding = functional.relu(self.embed(self.before(pooled)))
        return self.classify(embedding), embedding


class Linear(Head):
    """The quantities straight from the pooled features, which are the embedding."""

    def __init__(self, channels: int, dropout: float, quantities: int) -> None:
        super().__init__()
        self.size = channels
        self.before = nn.Dropout(dropout)
        self.classify = nn.Linear(channels, quantities)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled = features.mean(dim=(2, 3))
        return self.classify(self.before(pooled)), pooled


class Capstone(Head):
    """512–BatchNorm–Dropout–256, as in the capstone projects on this data set."""

    def __init__(self, channels: int, dropout: float, quantities: int) -> None:
        super().__init__()
        self.size = 256
        self.embed = nn.Sequential(
            nn.Linear(channels, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, self.size),
            nn.ReLU(),
        )
        self.classify = nn.Linear(self.size, quantities)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.embed(features.mean(dim=(2, 3)))
        return self.classify(embedding), embedding


def head(channels: int, config: ModelConfig) -> Head:
    """The configured head."""
    if config.head == "linear":
        return Linear(channels, config.dropout, config.quantities)
    if config.head == "capstone":
        return Capstone(channels, config.dropout, config.quantities)
    return Embedding(channels, config.embedding, config.dropout, config.quantities)
