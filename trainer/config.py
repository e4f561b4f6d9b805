"""The configuration of a training run: every option with its type, default and description.

It is read from a TOML file, overridden by command-line flags, and stored in each checkpoint.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic.fields import FieldInfo

from binwatch.counts import CLASS_INDEXES, CLASSES, MAX_EXACT_COUNT, column_names
from binwatch.errors import quote_value
from binwatch.image import INPUT_SIZE
from trainer.errors import ConfigError


def _validate_shares(shares: tuple[float, ...]) -> tuple[float, ...]:
    if shares and (len(shares) != len(CLASSES) or min(shares) <= 0):
        raise ValueError(f"expected {len(CLASSES)} numbers above 0, the shares of {column_names(CLASS_INDEXES)} items")
    return shares


GROUP_COLUMN = "bin_group"

ClassShares = Annotated[tuple[FiniteFloat, ...], AfterValidator(_validate_shares)]
"""Relative frequency of each class among the bins that will be counted. Need not sum to 1. May be empty."""


class Section(BaseModel):
    """A table of options. It is immutable and rejects unknown options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Section):
    """The photos, their labels and their splits."""

    photos: Path = Field(description="folder or tar with photos; a photo's key is its file name without suffix")
    index: Path | None = Field(
        None, description="CSV with a row per photo, or a file_list.json; none: folders named after quantities"
    )
    key_column: str = Field("key", description="the photo's key, as text")
    label_column: str = Field("label", description="number of items in the photo, or 6+ of six or more")
    group_column: str = Field(
        GROUP_COLUMN,
        description="photos of one group never land in different splits; empty: each photo is a group of its own",
    )
    split_column: str = Field(
        "", description="column with train, validation or test for each photo; empty: by a hash of the group"
    )
    split_seed: int = Field(0, description="seed of the split by hash")
    class_shares: ClassShares = Field(
        (),
        description="shares of 0, 1, … items among the bins that will be counted; empty: those of the training photos",
    )
    size: int = Field(
        INPUT_SIZE, ge=32, le=1024, description="side in pixels of the network's input, to which photos are squashed"
    )
    jpeg_quality: int = Field(
        0, ge=0, le=95, description="JPEG quality at which `photos` were stored at input size; 0: original photos"
    )

    @property
    def labels(self) -> Path:
        """The index, or the photos' folder if there is none. For messages."""
        return self.index or self.photos


class ModelConfig(Section):
    """The network and its initial weights."""

    architecture: str = Field(
        "resnet50", description="name of a convolutional network of timm, or resnet50v2, a pre-activation ResNet50"
    )
    weights: str = Field(
        "imagenet", description="imagenet (an installed package, else a download), none, or the path of a file"
    )
    freeze: str = Field("", description="last frozen stage or block, e.g. layer3 or layer3.2; empty: none is frozen")
    width: float = Field(1.0, gt=0, le=4, description="scales the channels of resnet50v2; for tests")
    highest: int = Field(
        20,
        ge=MAX_EXACT_COUNT,
        le=200,
        description="largest quantity with a probability of its own; the last probability is that of more",
    )
    head: Literal["embedding", "linear", "capstone"] = Field(
        "embedding", description="embedding, linear, or capstone: 512–BatchNorm–Dropout–256"
    )
    embedding: int = Field(64, ge=1, description="size of the head's embedding")
    dropout: float = Field(0.3, ge=0, lt=1, description="dropout of the pooled features, before the embedding")
    drop_path: float = Field(
        0.1, ge=0, lt=1, description="stochastic depth rate of the last block, where the network has it"
    )

    @property
    def quantities(self) -> int:
        """Number of network outputs: one for each of 0, 1, … `highest`, and one for "more"."""
        return self.highest + 2


class AugmentConfig(Section):
    """Random augmentation of training photos. It is mild, because a hidden item would make the label wrong."""

    views: int = Field(4, ge=1, description="versions of each photo whose features are cached; the first is unchanged")
    flip: bool = Field(True, description="mirror left-right at random")
    zoom: float = Field(0.12, ge=0, lt=0.5, description="shrink by up to this share, per axis; never enlarges")
    shift: float = Field(0.04, ge=0, lt=0.5, description="move by up to this share of the side")
    rotate: float = Field(3.0, ge=0, lt=45, description="rotate by up to this many degrees")
    brightness: float = Field(0.2, ge=0, lt=1, description="brighter or darker by up to this share")
    contrast: float = Field(0.2, ge=0, lt=1, description="more or less contrast by up to this share")
    sharpness: float = Field(0.0, ge=0, le=1, description="sharper or more blurred by up to this share")
    where: Literal["auto", "readers", "device"] = Field(
        "auto", description="readers: in the reading threads; device: on train.device; auto: device if that is a GPU"
    )


class TrainConfig(Section):
    """Training length, optimiser, loss and device."""

    epochs: int = Field(12, ge=1, description="passes over the training photos")
    batch_size: int = Field(64, ge=2, description="photos per micro-batch")
    accumulate: int = Field(1, ge=1, description="micro-batches per step (gradient accumulation), to save memory")
    optimiser: Literal["adamw", "adam", "sgd"] = Field(
        "adamw", description="adamw, adam, or sgd with Nesterov momentum 0.9"
    )
    learning_rate: float = Field(
        1e-3, gt=0, le=100, description="peak learning rate of layers with random initial weights"
    )
    pretrained_factor: float = Field(0.2, ge=0, le=1, description="factor of the learning rate for pretrained layers")
    weight_decay: float = Field(
        0.05, ge=0, description="weight decay of convolutions and matrices; norms and biases have none"
    )
    schedule: Literal["cosine", "one_cycle", "constant"] = Field(
        "cosine", description="after the warm-up: cosine, one_cycle (moves the momentum, too) or constant"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps until the learning rate's peak")
    loss: Literal["ordinal", "cross_entropy"] = Field(
        "ordinal", description="ordinal (soft targets that include neighbouring quantities) or cross_entropy"
    )
    class_weights: Literal["none", "sqrt", "balanced"] = Field(
        "none", description="weight of rare labels in the loss: none, sqrt or balanced"
    )
    ordinal_sigma: float = Field(
        0.5, ge=0, description="width in items of the ordinal loss's targets, up to 5 items; 0: the label alone"
    )
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the EMA of the weights; 0: no EMA")
    clip: float = Field(5.0, gt=0, description="largest gradient norm; larger gradients are scaled down")
    patience: int = Field(0, ge=0, description="stop after this many epochs without a better one; 0: never")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="fp32, or bf16 (autocast), which is faster only where the hardware has it"
    )
    channels_last: bool = Field(False, description="memory layout that convolutions on GPUs prefer")
    compile: bool = Field(False, description="use torch.compile: slow start, needs a C++ compiler; see profile")
    tensorboard: bool = Field(False, description="also write TensorBoard files into the run's folder")
    # The default is not auto: only CPU runs are reproducible bit for bit, and a GPU needs another precision and batch
    # size.
    device: str = Field(
        "cpu",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="cpu, cuda, cuda:1, … or auto: cuda if torch sees a GPU, else cpu",
    )
    threads: int = Field(0, ge=0, description="CPU threads of torch; 0: one per core that CPU mask and quota allow")
    readers: int = Field(4, ge=1, le=256, description="threads per process that read photos ahead")
    seed: int = Field(0, description="seed of everything random: order, augmentation, dropout")


class DistilConfig(Section):
    """Knowledge distillation (Hinton et al. 2015): the mean output of trained teachers is learned with the labels."""

    teachers: tuple[Path, ...] = Field((), description="checkpoints, or folders of runs, whose mean output is learned")
    share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of the loss for the distance from the teachers; the rest is for the labels",
    )
    temperature: float = Field(
        1.0, gt=0, le=20, description="temperature of both outputs before they are compared; above 1 it smooths them"
    )


class Config(Section):
    """All options of a training run."""

    data: DataConfig
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    distil: DistilConfig = DistilConfig()


def read_config(file: Path | None, changes: dict[str, Any]) -> Config:
    """Read the configuration in `file` and apply `changes` ("train.epochs" → 3). Raises ConfigError."""
    # The table [data] always exists, so that the error for a missing option names the option.
    tables = {"data": {}} | apply_changes(read_toml(file) if file else {}, changes, Config)
    try:
        return Config.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(
            f"{first_mistake(error, Config).text}; see the table of options in docs/training.md"
        ) from error


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in a configuration."""

    text: str
    """The error message."""
    option: str
    """Name of the option. For an unknown option, the existing option with the closest name, if one is close."""


def first_mistake(error: ValidationError, schema: type[BaseModel]) -> Mistake:
    """Describe the first error. For an unknown option, suggest the closest option of `schema`, if any."""
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return Mistake(f"{name}: {first['msg']}", name)
    section, dot, option = name.rpartition(".")
    in_other_sections = [f"{other}.{option}" for other in schema.model_fields if option in _options(schema, other)]
    similar = difflib.get_close_matches(option, _options(schema, section) if section else schema.model_fields, n=1)
    closest = [*in_other_sections, *(f"{section}{dot}{match}" for match in similar), name][0]
    hint = f" (did you mean {closest}?)" if closest != name else ""
    return Mistake(f"{name} is not an option{hint}", closest)


class IntLiteral(int):
    """An integer that keeps its source `text`, because the value `1_0` of a string option is not `10`."""

    text: str


class FloatLiteral(float):
    """A float that keeps its source `text`, because the version `1.10` is not `1.1`."""

    text: str


def parse_assignment(text: str) -> tuple[str, Any]:
    """Parse `train.epochs=3` to ("train.epochs", 3). A value that is not valid TOML is a string."""
    name, equals, value = text.partition("=")
    if not equals or "." not in name:
        raise ConfigError(f"{text!r}: expected SECTION.OPTION=VALUE, for example train.epochs=3")
    return name, _parse_value(value)


def _parse_value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    if isinstance(value, bool | str | list | dict):
        return value
    if not isinstance(value, int | float):  # such as a date: no option is one, but a version may look like one
        return text.strip()
    literal = FloatLiteral(value) if isinstance(value, float) else IntLiteral(value)
    literal.text = text.strip()
    return literal


def source_text(value: Any) -> str:
    """Return the source text of a number from `parse_assignment`, or any other value as a string."""
    return str(getattr(value, "text", value))


def apply_changes(tables: dict[str, Any], changes: dict[str, Any], schema: type[BaseModel]) -> dict[str, Any]:
    """Apply `changes` to the tables of a file, in place: "train.epochs" → 3 sets `epochs` in the table `train`.

    Returns `tables`. If an option is a string or a path in `schema`, a number becomes its source text again.
    """
    for name, value in changes.items():
        section, _, option = name.partition(".")
        table = tables.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{section}: expected a table of options, found {quote_value(table)}")
        if isinstance(value, IntLiteral | FloatLiteral):
            field = _options(schema, section).get(option)
            is_text = field is not None and field.annotation in (str, Path, Path | None)
            value = value.text if is_text else int(value) if isinstance(value, int) else float(value)
        table[option] = value
    return tables


def _options(schema: type[BaseModel], section: str) -> dict[str, FieldInfo]:
    """Return the options of a table of `schema`; empty if there is no such table."""
    annotation = schema.model_fields[section].annotation if section in schema.model_fields else None
    types = (annotation, *get_args(annotation))  # a table may be optional
    tables = (each for each in types if isinstance(each, type) and issubclass(each, BaseModel))
    return next((table.model_fields for table in tables), {})


def read_toml(file: Path) -> dict[str, Any]:
    """Read the tables of a TOML file. Raises ConfigError."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not TOML ({error})") from error
