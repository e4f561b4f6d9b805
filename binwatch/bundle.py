"""The model bundle: `card.json` and one ONNX file per variant, each checked against its SHA-256.

The trainer writes bundles, the worker counts with them, the monitor reads the card.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from binwatch.counts import CLASS_INDEXES, CLASSES, MAX_EXACT_COUNT, MORE_THAN_5, CountRule
from binwatch.errors import BundleError
from binwatch.image import INPUT_SIZE, ImageLimits, Photo, load_photo

CARD_FILE = "card.json"
INPUT_NAME = "photos"
"""Name of the ONNX input: uint8 (batch, size, size, 3), RGB, not normalised."""
PROBABILITIES_OUTPUT = "probabilities"
"""Name of an ONNX output: float32 (batch, highest + 2), calibrated probabilities of 0, 1, … items and of more.

Each row sums to 1. binwatch.counts.in_classes turns them into probabilities of the classes.
"""
EMBEDDING_OUTPUT = "embedding"
"""Name of an ONNX output: float32 (batch, embedding_size), for drift."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A file name without folders, so that a card cannot point outside of the bundle."""
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class _CardModel(BaseModel):
    # JSON has no NaN. It would be written as null, and the card could not be read again.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Precision(StrEnum):
    """Variants of a bundle: the reference, the one for CUDA and the one for CPUs."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class SelfCheck(_CardModel):
    """The ONNX file's output at export for the photos of binwatch.self_check, in their order."""

    probabilities: list[list[float]] = Field(min_length=1)
    embeddings: list[list[float]] = Field(min_length=1)


class Variant(_CardModel):
    """One ONNX file. `metrics` were measured with this file on the test split."""

    file: FileName
    sha256: Sha256
    bytes: int = Field(gt=0)
    metrics: dict[str, Any] = {}
    self_check: SelfCheck | None = None
    """None in bundles older than self-checks, which are used unchecked."""


class Estimate(_CardModel):
    """A figure with its 95 % bootstrap confidence interval, resampled by bin group."""

    value: float
    low: float
    high: float


class QuantityErrors(_CardModel):
    """Errors in items, without the cap at "more than 5": median of the distribution − true quantity.

    A median beyond `Card.highest` counts as `highest` + 1.
    """

    photos: int
    """Number of photos whose true quantity is known."""
    mae: Estimate
    rmse: Estimate


class Metrics(_CardModel):
    """Figures of the fp32 model on one set of labelled photos.

    `rmse` and `mae` are in items, with "more than 5" taken as 6; `ece` is the expected calibration error in 15 bins.
    All but `rmse_of_mean` and `mae_of_median` are figures of the count, by the card's rule.
    """

    photos: int
    accuracy: Estimate
    rmse: Estimate
    mae: Estimate
    within_one: Estimate
    ece: Estimate
    rmse_of_mean: Estimate | None = None
    """RMSE of the distribution's mean, which has the smallest expected squared error and is not a whole number."""
    mae_of_median: Estimate | None = None
    """MAE of the distribution's median, which has the smallest expected absolute error. None in older bundles."""
    quantities: QuantityErrors | None = None
    """None in older bundles, where no true quantity is known, for the challenge's photo sets, and for counts by another
    rule than the card's."""
    majority_accuracy: float
    """Accuracy on these photos of always predicting the most frequent label of the training photos."""
    per_class: dict[str, dict[str, float]] = {}
    """Class → {"photos", "recall", "precision"}."""
    confusion: list[list[int]] = []
    """Rows are labels, columns predictions, in the order of the classes."""


class EmbeddingReference(_CardModel):
    """Distribution of embeddings: z = axes · (embedding − mean) has mean 0 and variance 1 along each of k axes."""

    mean: list[float]
    """Shape (embedding_size,)."""
    axes: list[list[float]]
    """Shape (k, embedding_size): the k directions of largest variance, each divided by its standard deviation."""


class Reference(_CardModel):
    """The drift reference: distributions of the validation photos and of the model's output for them.

    The later fields are optional, since older bundles lack them.
    """

    photos: int
    predicted: list[int]
    """Photos by predicted class."""
    labels: list[int]
    """Photos by labelled class."""
    confidence: list[float]
    """Deciles 0, 10, …, 100 % of the probability of the count."""
    groups: int | None = None
    """Number of bins of the photos: the effective sample size, since photos of one bin resemble each other."""
    quantiles: dict[str, list[float]] = {}
    """Name of a continuous signal (binwatch.reference.Signal) → its evenly spaced quantiles, from 0 to 100 %."""
    embedding: EmbeddingReference | None = None
    reliability: list[tuple[float, float]] = []
    """(mean confidence, accuracy) of the photos in each tenth by confidence, for estimated accuracy."""
    extra: dict[str, Any] = {}


class Category(_CardModel):
    """Quantities that are calibrated together: a single one, or adjacent ones with too few photos each.

    Each list has the scores of one photo per bin and quantity, ascending; the higher, the odder
    (binwatch.conformal.scores_of).
    """

    classes: tuple[int, ...] = Field(min_length=1)
    """Indexes of columns of the distribution; for a model that has only the classes, of the classes."""
    either: tuple[float, ...] = Field(min_length=1)
    missing: tuple[float, ...] = Field(min_length=1)
    surplus: tuple[float, ...] = Field(min_length=1)


class Calibration(_CardModel):
    """Oddness scores of correctly recorded photos, from which binwatch.conformal computes p-values.

    Stored in the card, since it is small and belongs to this version of the card.
    """

    photos: int = Field(gt=0)
    """Photos whose scores are kept."""
    split: str
    """Part of the data set with these photos. The model must not have learned from any of them."""
    categories: tuple[Category, ...] = Field(min_length=1)


class Card(_CardModel):
    """The metadata of a model: for using it, for judging it, and its origin."""

    schema_version: Literal[1] = 1
    version: Version
    architecture: str
    created: AwareDatetime
    classes: tuple[str, ...] = CLASSES
    """The classes that are counted, recorded and measured."""
    highest: int = Field(MAX_EXACT_COUNT, ge=MAX_EXACT_COUNT)
    """Largest number of items that the model distinguishes: it outputs a distribution over 0, 1, … `highest` and more.

    The classes are a view of the distribution. Older bundles have only the classes, that is a `highest` of 5.
    """
    answers: tuple[int, ...] = CLASS_INDEXES
    """Indexes of the classes that the model has learned and can predict. The probability of all others is 0."""
    input_size: int = Field(INPUT_SIZE, gt=0)
    """Side of the model's input, in pixels."""
    jpeg_quality: int | None = Field(None, ge=1, le=95)
    """Quality of the JPEGs of input size that the model learned from; None if it learned from unchanged photos.

    `load_photo` stores each photo as such a JPEG before it is counted.
    """
    embedding_size: int = Field(gt=0)
    count_rule: CountRule = CountRule.MODE
    """How a count follows from the probabilities.

    A card with an unknown rule is refused, since its figures were measured with that rule.
    """
    temperature: float = Field(gt=0)
    """Divisor of the logits inside the graph, so that probabilities are calibrated."""
    variants: dict[Precision, Variant] = Field(min_length=1)
    metrics: dict[str, Metrics] = {}
    """Name of the photo set ("test", "test 0-5 (challenge)") → figures."""
    reference: Reference | None = None
    calibration: Calibration | None = None
    """None in bundles older than calibrations by direction and by column of the distribution.

    Bins are then ranked without p-values.
    """
    training: dict[str, Any] = {}
    """Data, split, duration, hardware and the whole configuration of the training run."""
    notes: list[str] = []

    @field_validator("calibration", mode="before")
    @classmethod
    def _of_each_direction(cls, calibration: Any) -> Any:
        categories = calibration.get("categories") if isinstance(calibration, dict) else None
        old = isinstance(categories, list) and all(isinstance(each, dict) and "scores" in each for each in categories)
        return None if categories and old else calibration

    @field_validator("calibration")
    @classmethod
    def _of_the_distribution(cls, calibration: Calibration | None, info: ValidationInfo) -> Calibration | None:
        more = info.data.get("highest", MAX_EXACT_COUNT) + 1
        columns = {index for part in calibration.categories for index in part.classes} if calibration else set()
        if not columns <= set(range(more + 1)):
            raise ValueError(f"expected categories of the columns 0 to {more}, found {max(columns)}")
        # An older calibration has one category for all quantities beyond 5, which gives no p-value for, say, 17.
        return None if MORE_THAN_5 in columns and more not in columns else calibration

    @field_validator("answers")
    @classmethod
    def _in_order(cls, answers: tuple[int, ...]) -> tuple[int, ...]:
        if not answers or answers != tuple(index for index in CLASS_INDEXES if index in answers):
            raise ValueError(f"expected some of the classes {', '.join(map(str, CLASS_INDEXES))}, in this order")
        return answers

    def load_photo(self, data: bytes, limits: ImageLimits = ImageLimits()) -> Photo:  # noqa: B008 (frozen)
        """A photo decoded for the model's input. Raises PhotoError, as binwatch.image.load does."""
        return load_photo(data, size=self.input_size, limits=limits, jpeg_quality=self.jpeg_quality)

    def measured(self, variant: str) -> dict[str, Metrics]:
        """The figures of a variant if they were measured with its file, else those of fp32, as in `metrics`.

        Only fp32 has figures by class.
        """
        own = self.variants[Precision(variant)].metrics if variant in self.variants else {}
        found = dict(self.metrics)
        for name, of_fp32 in self.metrics.items():
            if figures := own.get(name):
                same = {"photos": of_fp32.photos, "majority_accuracy": of_fp32.majority_accuracy}
                known = {key: value for key, value in figures.items() if key in Metrics.model_fields}
                found[name] = Metrics.model_validate(same | known)
        return found

    @property
    def never(self) -> tuple[int, ...]:
        """Indexes of the classes that the model cannot predict: no training photo showed them."""
        return tuple(index for index in CLASS_INDEXES if index not in self.answers)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_variant(path: Path, metrics: dict[str, Any] | None = None, self_check: SelfCheck | None = None) -> Variant:
    """The card's entry for an ONNX file on disk."""
    return Variant(
        file=path.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        metrics=metrics or {},
        self_check=self_check,
    )


class Bundle:
    """A bundle in a folder. Opening it reads the card; `model()` checks and names one ONNX file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.card = _read_card(folder / CARD_FILE)

    def model(self, precision: Precision) -> Path:
        """Path of the variant's ONNX file. Raises BundleError if it is missing or differs from the card's."""
        variant = self.card.variants.get(precision)
        if variant is None:
            have = ", ".join(self.card.variants)
            raise BundleError(
                f"{self.folder}: no {precision} variant in {CARD_FILE} (found: {have}); export it or choose one"
            )
        path = self.folder / variant.file
        if not path.is_file():
            raise BundleError(f"{path}: named in {CARD_FILE} but missing; copy the whole bundle again")
        found = sha256_of(path)
        if found != variant.sha256:
            raise BundleError(
                f"{path}: its SHA-256 is {found}, the card says {variant.sha256}; the file is damaged or of another"
                " model: copy the whole bundle again"
            )
        return path


def _read_card(path: Path) -> Card:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}); name a folder with a model bundle, for workers by"
            " BINWATCH_MODEL_DIR (Binwatch's repository has one in samples/model)"
        ) from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: is not UTF-8 text ({error}); export the bundle again") from error
    try:
        card = Card.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BundleError(f"{path}: {where}: {first['msg']}; export the bundle again") from error
    if card.classes != CLASSES:
        raise BundleError(f"{path}: counts {card.classes}, this release counts {CLASSES}; export the model again")
    return card


def write_card(folder: Path, card: Card) -> Path:
    """Write `card.json` into `folder` atomically."""
    path = folder / CARD_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return path
