"""A model as it ships: `card.json` and one ONNX file per variant, each checked against its SHA-256.

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

from binwatch.counts import CLASSES, EVERY, HIGHEST, MORE, CountRule
from binwatch.errors import BundleError
from binwatch.image import SIZE, ImageLimits, Photo, load

CARD = "card.json"
INPUT = "photos"
"""Name of the ONNX input: uint8 (batch, size, size, 3), RGB, not normalised."""
PROBABILITIES = "probabilities"
"""Name of an ONNX output: float32 (batch, highest + 2), calibrated, each row sums to 1: of 0, 1, … items, and of more.

binwatch.counts.in_classes makes those of the classes of it.
"""
EMBEDDING = "embedding"
"""Name of an ONNX output: float32 (batch, embedding_size), for drift."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A plain name within the bundle's folder: a card cannot point elsewhere."""
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class _CardModel(BaseModel):
    # JSON has no NaN: it would be written as null, and the card could not be read again.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Precision(StrEnum):
    """Variants that a bundle may hold: the reference, the one for CUDA, the one for CPUs."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class SelfCheck(_CardModel):
    """What a file answered to the photos of binwatch.self_check when it was exported, in their order."""

    probabilities: list[list[float]] = Field(min_length=1)
    embeddings: list[list[float]] = Field(min_length=1)


class Variant(_CardModel):
    """One ONNX file. `metrics` are measured on the test split with this very file."""

    file: FileName
    sha256: Sha256
    bytes: int = Field(gt=0)
    metrics: dict[str, Any] = {}
    self_check: SelfCheck | None = None
    """None in bundles from before there was one: they are used unchecked."""


class Estimate(_CardModel):
    """A figure with its 95 % bootstrap confidence interval, resampled by bin group."""

    value: float
    low: float
    high: float


class QuantityErrors(_CardModel):
    """Errors in items over all quantities: the median of the distribution less the true quantity, which is not capped.

    Where the median is beyond `Card.highest`, it counts as the number after it.
    """

    photos: int
    """Whose true quantity is known."""
    mae: Estimate
    rmse: Estimate


class Metrics(_CardModel):
    """Figures of the fp32 model on one set of labelled photos.

    `rmse` and `mae` are in items, with "more than 5" taken as 6; `ece` is the expected calibration error in 15 bins.
    All but `rmse_of_mean` and `mae_of_median` are those of the count that the card's rule makes of the distribution.
    """

    photos: int
    accuracy: Estimate
    rmse: Estimate
    mae: Estimate
    within_one: Estimate
    ece: Estimate
    rmse_of_mean: Estimate | None = None
    """Of the distribution's mean, no whole number: the answer with the smallest expected squared error."""
    mae_of_median: Estimate | None = None
    """Of the distribution's median: the answer with the smallest expected absolute error. None in older bundles."""
    quantities: QuantityErrors | None = None
    """None in older bundles, and where answers were left out."""
    majority_accuracy: float
    """What always answering the commonest label of the training photos reaches on these photos."""
    per_class: dict[str, dict[str, float]] = {}
    """Class → {"photos", "recall", "precision"}."""
    confusion: list[list[int]] = []
    """Rows are labels, columns predictions, in the order of the classes."""


class EmbeddingReference(_CardModel):
    """Where embeddings lie: z = axes · (embedding − mean) has mean 0 and variance 1 along each of k axes."""

    mean: list[float]
    """Shape (embedding_size,)."""
    axes: list[list[float]]
    """Shape (k, embedding_size): the k directions of most variance, each divided by its standard deviation."""


class Reference(_CardModel):
    """What counts look like when nothing has drifted: the validation photos, seen by the model.

    The later fields are optional: a bundle from before they existed is judged by what it has.
    """

    photos: int
    predicted: list[int]
    """Photos by predicted class."""
    labels: list[int]
    """Photos by labelled class."""
    confidence: list[float]
    """Deciles 0, 10, …, 100 % of the probability of the count."""
    groups: int | None = None
    """Bins among the photos. Photos of one bin resemble each other: this many are independent, not `photos`."""
    quantiles: dict[str, list[float]] = {}
    """Name of a continuous signal (binwatch.reference.Signal) → its evenly spaced quantiles, from 0 to 100 %."""
    embedding: EmbeddingReference | None = None
    reliability: list[tuple[float, float]] = []
    """(mean confidence, accuracy) of the photos in each tenth by confidence, for estimated accuracy."""
    extra: dict[str, Any] = {}


class Category(_CardModel):
    """Quantities that are calibrated together: one alone, or neighbours of which there are too few photos.

    Each list holds a score of one photo of each bin and quantity, ascending; the higher, the odder
    (binwatch.conformal.scores_of).
    """

    classes: tuple[int, ...] = Field(min_length=1)
    """Indexes of the columns of the distribution: of a model that has the classes alone, those of the classes."""
    either: tuple[float, ...] = Field(min_length=1)
    missing: tuple[float, ...] = Field(min_length=1)
    surplus: tuple[float, ...] = Field(min_length=1)


class Calibration(_CardModel):
    """How odd correctly recorded photos look to the model: what binwatch.conformal makes p-values with.

    In the card and not in a file beside it, since it is small, and as old or as new as the card.
    """

    photos: int = Field(gt=0)
    """Photos whose scores are kept."""
    split: str
    """Part of the data set that they are of; the model must have learned from none of them."""
    categories: tuple[Category, ...] = Field(min_length=1)


class Card(_CardModel):
    """What is known of a model: enough to use it, to judge it and to say where it came from."""

    schema_version: Literal[1] = 1
    version: Version
    architecture: str
    created: AwareDatetime
    classes: tuple[str, ...] = CLASSES
    """What is counted, recorded and measured."""
    highest: int = Field(HIGHEST, ge=HIGHEST)
    """Items up to which the model tells numbers apart: it answers with a distribution over 0, 1, … `highest` and more.

    The classes are a view of that. Bundles from before have the classes alone, which is a `highest` of 5.
    """
    answers: tuple[int, ...] = EVERY
    """Indexes of the classes that it has learned and can answer. The probability of every other class is 0."""
    input_size: int = Field(SIZE, gt=0)
    """Side in pixels of the photos that it sees."""
    jpeg_quality: int | None = Field(None, ge=1, le=95)
    """Quality of the JPEGs of input size that the model learned from; None if it learned from photos as they came.

    A photo must pass through the same before it is counted (`load_photo` does it).
    """
    embedding_size: int = Field(gt=0)
    count_rule: CountRule = CountRule.MODE
    """How a count follows from the probabilities.

    A card that names an unknown rule is refused: its photos would be counted otherwise than its figures were measured.
    """
    temperature: float = Field(gt=0)
    """What the logits are divided by inside the graph, so that probabilities are calibrated."""
    variants: dict[Precision, Variant] = Field(min_length=1)
    metrics: dict[str, Metrics] = {}
    """Name of the photo set ("test", "test 0-5 (challenge)") → figures."""
    reference: Reference | None = None
    calibration: Calibration | None = None
    """None in bundles from before there was one, or one for each direction and for each column of the distribution.

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
        more = info.data.get("highest", HIGHEST) + 1
        columns = {index for part in calibration.categories for index in part.classes} if calibration else set()
        if not columns <= set(range(more + 1)):
            raise ValueError(f"expected categories of the columns 0 to {more}, found {max(columns)}")
        # From before there were such columns: one category for all that is beyond 5, which makes no p-values of 17.
        return None if MORE in columns and more not in columns else calibration

    @field_validator("answers")
    @classmethod
    def _in_order(cls, answers: tuple[int, ...]) -> tuple[int, ...]:
        if not answers or answers != tuple(index for index in EVERY if index in answers):
            raise ValueError(f"expected some of the classes {', '.join(map(str, EVERY))}, in this order")
        return answers

    def load_photo(self, data: bytes, limits: ImageLimits = ImageLimits()) -> Photo:  # noqa: B008 (frozen)
        """One photo as the model sees it. Raises PhotoError, as binwatch.image.load does."""
        return load(data, size=self.input_size, limits=limits, jpeg_quality=self.jpeg_quality)

    def measured(self, variant: str) -> dict[str, Metrics]:
        """The figures of one variant, where they were measured with its file; else those of fp32, as `metrics`.

        Figures by class are of fp32 alone, and so are left out of the others.
        """
        own = self.variants[Precision(variant)].metrics if variant in self.variants else {}
        return {name: _of_variant(of_fp32, own.get(name)) for name, of_fp32 in self.metrics.items()}

    @property
    def never(self) -> tuple[int, ...]:
        """Indexes of the classes that it never answers: no training photo showed them."""
        return tuple(index for index in EVERY if index not in self.answers)


def _of_variant(of_fp32: Metrics, own: dict[str, Any] | None) -> Metrics:
    if not own:
        return of_fp32
    same = {"photos": of_fp32.photos, "majority_accuracy": of_fp32.majority_accuracy}
    return Metrics.model_validate(same | {name: own[name] for name in own if name in Metrics.model_fields})


def digest(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(path: Path, metrics: dict[str, Any] | None = None, self_check: SelfCheck | None = None) -> Variant:
    """The card's entry for an ONNX file on disk."""
    return Variant(
        file=path.name,
        sha256=digest(path),
        bytes=path.stat().st_size,
        metrics=metrics or {},
        self_check=self_check,
    )


class Bundle:
    """A bundle in a folder. Opening it reads the card; `model()` checks and names one ONNX file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.card = _read_card(folder / CARD)

    def model(self, precision: Precision) -> Path:
        """Path of the variant's ONNX file. Raises BundleError if it is not there or is not the one in the card."""
        variant = self.card.variants.get(precision)
        if variant is None:
            have = ", ".join(self.card.variants)
            raise BundleError(
                f"{self.folder}: no {precision} variant in {CARD} (found: {have}); export it or choose one"
            )
        path = self.folder / variant.file
        if not path.is_file():
            raise BundleError(f"{path}: named in {CARD} but missing; copy the whole bundle again")
        found = digest(path)
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
    """Write `card.json` into `folder`, whole or not at all."""
    path = folder / CARD
    partial = path.with_suffix(".partial")
    partial.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return path
