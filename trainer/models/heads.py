"""Heads: feature maps → logits and embedding. They replace the classifier of a pretrained network."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from trainer.config import ModelConfig


class Head(nn.Module):
    """Feature maps (batch, channels, h, w) → logits (batch, quantities) and embedding (batch, embedding_size)."""

    embedding_size: int

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class EmbeddingHead(Head):
    """A small embedding, and a linear classifier of the quantities."""

    def __init__(self, channels: int, embedding: int, dropout: float, quantities: int) -> None:
        super().__init__()
        self.embedding_size = embedding
        self.dropout = nn.Dropout(dropout)
        self.embed = nn.Linear(channels, embedding)
        self.classify = nn.Linear(embedding, quantities)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled = features.mean(dim=(2, 3))
        embedding = functional.relu(self.embed(self.dropout(pooled)))
        return self.classify(embedding), embedding


class LinearHead(Head):
    """A linear classifier of the quantities. The embedding is the pooled features."""

    def __init__(self, channels: int, dropout: float, quantities: int) -> None:
        super().__init__()
        self.embedding_size = channels
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(channels, quantities)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled = features.mean(dim=(2, 3))
        return self.classify(self.dropout(pooled)), pooled


class CapstoneHead(Head):
    """512–BatchNorm–Dropout–256, as in the capstone projects on this data set."""

    def __init__(self, channels: int, dropout: float, quantities: int) -> None:
        super().__init__()
        self.embedding_size = 256
        self.embed = nn.Sequential(
            nn.Linear(channels, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, self.embedding_size),
            nn.ReLU(),
        )
        self.classify = nn.Linear(self.embedding_size, quantities)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.embed(features.mean(dim=(2, 3)))
        return self.classify(embedding), embedding


def build_head(channels: int, config: ModelConfig) -> Head:
    """Build the configured head."""
    if config.head == "linear":
        return LinearHead(channels, config.dropout, config.quantities)
    if config.head == "capstone":
        return CapstoneHead(channels, config.dropout, config.quantities)
    return EmbeddingHead(channels, config.embedding, config.dropout, config.quantities)
