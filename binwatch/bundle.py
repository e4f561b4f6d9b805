"""The model bundle: `card.json` and one ONNX file per variant, each verified by its SHA-256.

The trainer writes bundles, workers count with them, and the monitor reads their cards.
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
"""Name of the ONNX input: photos, uint8 (batch, size, size, 3), RGB, not normalised."""
PROBABILITIES_OUTPUT = "probabilities"
"""Name of an ONNX output: float32 (batch, highest + 2), calibrated probabilities of 0, 1, … items and "more".

Each row sums to 1. binwatch.counts.class_probabilities converts them to probabilities of the classes.
"""
EMBEDDING_OUTPUT = "embedding"
"""Name of an ONNX output: float32 (batch, embedding_size), used for drift."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A file name without folders, so that a card cannot refer to files outside of its bundle."""
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class _CardModel(BaseModel):
    # JSON has no NaN: pydantic would write null, and the card could not be read again.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Precision(StrEnum):
    """Variants of a bundle: fp32 is the reference, fp16 is for CUDA, and int8 is for CPUs."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class SelfCheck(_CardModel):
    """Output of the ONNX file at export for the photos of binwatch.self_check, in their order."""

    probabilities: list[list[float]] = Field(min_length=1)
    embeddings: list[list[float]] = Field(min_length=1)


class Variant(_CardModel):
    """One ONNX file. `metrics` were measured with it on the test split."""

    file: FileName
    sha256: Sha256
    bytes: int = Field(gt=0)
    metrics: dict[str, Any] = {}
    self_check: SelfCheck | None = None
    """None in bundles that are older than self-checks. They are used without a check."""


class Estimate(_CardModel):
    """A figure with its 95 % bootstrap confidence interval, resampled by bin group."""

    value: float
    low: float
    high: float


class QuantityErrors(_CardModel):
    """Errors in items against true quantities, which are not capped: median of the distribution − quantity.

    A median beyond `Card.highest` counts as `highest` + 1.
    """

    photos: int
    """Number of photos whose true quantity is known."""
    mae: Estimate
    rmse: Estimate


class Metrics(_CardModel):
    """Figures of the fp32 model on one set of labelled photos.

    `rmse` and `mae` are in items, with "more than 5" taken as 6. `ece` is the expected calibration error in 15 bins.
    All figures but `rmse_of_mean` and `mae_of_median` are those of counts by the card's rule.
    """

    photos: int
    accuracy: Estimate
    rmse: Estimate
    mae: Estimate
    within_one: Estimate
    ece: Estimate
    rmse_of_mean: Estimate | None = None
    """RMSE of the distribution's mean, which minimises the expected squared error and need not be a whole number."""
    mae_of_median: Estimate | None = None
    """MAE of the distribution's median, which minimises the expected absolute error. None in older bundles."""
    quantities: QuantityErrors | None = None
    """None in older bundles, without known true quantities, for the challenge's photo sets, and for counts by another
    rule than the card's."""
    majority_accuracy: float
    """Accuracy on these photos of a constant prediction: the most frequent label of the training photos."""
    per_class: dict[str, dict[str, float]] = {}
    """Class → {"photos", "recall", "precision"}."""
    confusion: list[list[int]] = []
    """Rows are labels and columns are predictions, in the order of the classes."""


class EmbeddingReference(_CardModel):
    """Whitening of embeddings: z = axes · (embedding − mean) has mean 0 and variance 1 along each of k axes."""

    mean: list[float]
    """Shape (embedding_size,)."""
    axes: list[list[float]]
    """Shape (k, embedding_size): the k directions of largest variance, each divided by its standard deviation."""


class Reference(_CardModel):
    """The drift reference: distributions of the validation photos and of the model's output for them.

    Fields that older bundles lack are optional.
    """

    photos: int
    predicted: list[int]
    """Number of photos per predicted class."""
    labels: list[int]
    """Number of photos per labelled class."""
    confidence: list[float]
    """Deciles 0, 10, …, 100 % of the count's probability."""
    groups: int | None = None
    """Number of bins of the photos: the effective sample size, since photos of the same bin are correlated."""
    quantiles: dict[str, list[float]] = {}
    """Name of a continuous signal (binwatch.reference.Signal) → its evenly spaced quantiles, from 0 to 100 %."""
    embedding: EmbeddingReference | None = None
    reliability: list[tuple[float, float]] = []
    """(mean confidence, accuracy) of each tenth of the photos by confidence, for estimates of accuracy."""
    extra: dict[str, Any] = {}


class Category(_CardModel):
    """Quantities that are calibrated together: a single one, or adjacent ones with too few photos each.

    `either`, `missing` and `surplus` have the scores of one photo per bin and quantity, in ascending order. A higher
    score is odder (binwatch.conformal.oddness_scores).
    """

    classes: tuple[int, ...] = Field(min_length=1)
    """Indexes of columns of the distribution, which are the classes if the model has only those."""
    either: tuple[float, ...] = Field(min_length=1)
    missing: tuple[float, ...] = Field(min_length=1)
    surplus: tuple[float, ...] = Field(min_length=1)


class Calibration(_CardModel):
    """Oddness scores of correctly recorded photos, from which binwatch.conformal computes p-values.

    It is stored in the card, since it is small and belongs to the model's version.
    """

    photos: int = Field(gt=0)
    """Number of photos whose scores are kept."""
    split: str
    """Split of the data set that has these photos. None of them may have been used for training."""
    categories: tuple[Category, ...] = Field(min_length=1)


class Card(_CardModel):
    """The metadata of a model: how to use it, how good it is, and how it was made."""

    schema_version: Literal[1] = 1
    version: Version
    architecture: str
    created: AwareDatetime
    classes: tuple[str, ...] = CLASSES
    """The classes that are counted, recorded and measured."""
    highest: int = Field(MAX_EXACT_COUNT, ge=MAX_EXACT_COUNT)
    """Largest number of items that the model distinguishes: its distribution is over 0, 1, … `highest` and "more".

    The probabilities of the classes follow from it. Older bundles have only the classes, that is a `highest` of 5.
    """
    answers: tuple[int, ...] = CLASS_INDEXES
    """Indexes of the classes that the model has learned and can predict. The probability of all others is 0."""
    input_size: int = Field(INPUT_SIZE, gt=0)
    """Side of the model's input, in pixels."""
    jpeg_quality: int | None = Field(None, ge=1, le=95)
    """Quality of the JPEGs of input size that the model was trained on; None if it was trained on unchanged photos.

    `load_photo` compresses each photo as such a JPEG before it is counted.
    """
    embedding_size: int = Field(gt=0)
    count_rule: CountRule = CountRule.MODE
    """How a count follows from the probabilities.

    A card with an unknown rule is refused, since the card's figures were measured with that rule.
    """
    temperature: float = Field(gt=0)
    """Divisor of the logits inside the ONNX graph, which calibrates the probabilities."""
    variants: dict[Precision, Variant] = Field(min_length=1)
    metrics: dict[str, Metrics] = {}
    """Name of the photo set ("test", "test 0-5 (challenge)") → figures."""
    reference: Reference | None = None
    calibration: Calibration | None = None
    """None in bundles that are older than calibrations by direction and by column of the distribution.

    Bins are then ranked without p-values.
    """
    training: dict[str, Any] = {}
    """Data, split, duration, hardware and the complete configuration of the training run."""
    notes: list[str] = []

    @field_validator("calibration", mode="before")
    @classmethod
    def _drop_undirected_calibration(cls, calibration: Any) -> Any:
        categories = calibration.get("categories") if isinstance(calibration, dict) else None
        if not isinstance(categories, list) or not categories:
            return calibration
        is_old = all(isinstance(category, dict) and "scores" in category for category in categories)
        return None if is_old else calibration

    @field_validator("calibration")
    @classmethod
    def _check_columns(cls, calibration: Calibration | None, info: ValidationInfo) -> Calibration | None:
        last = info.data.get("highest", MAX_EXACT_COUNT) + 1
        categories = calibration.categories if calibration else ()
        columns = {column for category in categories for column in category.classes}
        if not columns <= set(range(last + 1)):
            raise ValueError(f"expected categories of the columns 0 to {last}, found {max(columns)}")
        # An older calibration has one category for all quantities beyond 5, which gives no p-value for, say, 17.
        return None if MORE_THAN_5 in columns and last not in columns else calibration

    @field_validator("answers")
    @classmethod
    def _check_order(cls, answers: tuple[int, ...]) -> tuple[int, ...]:
        if not answers or answers != tuple(index for index in CLASS_INDEXES if index in answers):
            raise ValueError(f"expected some of the classes {', '.join(map(str, CLASS_INDEXES))}, in this order")
        return answers

    def load_photo(self, data: bytes, limits: ImageLimits = ImageLimits()) -> Photo:  # noqa: B008 (frozen)
        """Decode a photo for the model's input. Raises PhotoError, as binwatch.image.load_photo does."""
        return load_photo(data, size=self.input_size, limits=limits, jpeg_quality=self.jpeg_quality)

    def metrics_of(self, variant: str) -> dict[str, Metrics]:
        """Return `metrics`, with the variant's own figures where they were measured, else with those of fp32.

        Only fp32 has figures by class.
        """
        variant_metrics = self.variants[Precision(variant)].metrics if variant in self.variants else {}
        metrics = dict(self.metrics)
        for name, fp32 in self.metrics.items():
            if figures := variant_metrics.get(name):
                shared = {"photos": fp32.photos, "majority_accuracy": fp32.majority_accuracy}
                own = {key: value for key, value in figures.items() if key in Metrics.model_fields}
                metrics[name] = Metrics.model_validate(shared | own)
        return metrics

    @property
    def unlearned_classes(self) -> tuple[int, ...]:
        """Indexes of the classes that the model cannot predict, since no training photo showed them."""
        return tuple(index for index in CLASS_INDEXES if index not in self.answers)


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_variant(path: Path, metrics: dict[str, Any] | None = None, self_check: SelfCheck | None = None) -> Variant:
    """Make the card's entry for an ONNX file."""
    return Variant(
        file=path.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        metrics=metrics or {},
        self_check=self_check,
    )


class Bundle:
    """A bundle in a folder. The constructor reads the card."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.card = _read_card(folder / CARD_FILE)

    def model_path(self, precision: Precision) -> Path:
        """Verify a variant's ONNX file and return its path. Raises BundleError if it is missing or damaged."""
        variant = self.card.variants.get(precision)
        if variant is None:
            available = ", ".join(self.card.variants)
            raise BundleError(
                f"{self.folder}: no {precision} variant in {CARD_FILE} (found: {available}); export it or choose one"
            )
        path = self.folder / variant.file
        if not path.is_file():
            raise BundleError(f"{path}: named in {CARD_FILE} but missing; copy the whole bundle again")
        sha256 = sha256_of(path)
        if sha256 != variant.sha256:
            raise BundleError(
                f"{path}: its SHA-256 is {sha256}, the card says {variant.sha256}; the file is damaged or of another"
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
        raise BundleError(f"{path}: {describe_first_error(error)}; export the bundle again") from error
    if card.classes != CLASSES:
        raise BundleError(f"{path}: counts {card.classes}, this release counts {CLASSES}; export the model again")
    return card


def describe_first_error(error: ValidationError) -> str:
    """Describe the first error only: a card has thousands of numbers, and pydantic would list each invalid one."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'the file'}: {first['msg']}"


def write_card(folder: Path, card: Card) -> Path:
    """Write `card.json` into `folder` atomically."""
    path = folder / CARD_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return path
