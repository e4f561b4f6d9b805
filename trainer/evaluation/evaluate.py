"""The command `evaluate`: measures a checkpoint or a bundle on labelled photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from binwatch.bundle import CARD_FILE, Bundle, Metrics, Precision, QuantityErrors
from binwatch.counts import CLASS_INDEXES, MORE_THAN_5, CountRule, class_probabilities, column_names
from binwatch.text import pluralize
from trainer.config import DataConfig, TrainConfig
from trainer.data import folders
from trainer.data.dataset import PhotoSet
from trainer.data.loader import Batch
from trainer.data.loading import read_data, read_photos, track
from trainer.data.photo_loader import PhotoLoader
from trainer.data.split import ALL_PHOTOS, Split
from trainer.display import Display
from trainer.distributed import devices
from trainer.errors import ConfigError, DataError
from trainer.evaluation.metrics import Ints, challenge_counts, counts_of, measure, quantity_errors
from trainer.evaluation.onnx_model import OnnxModel, run
from trainer.evaluation.temperature import softmax
from trainer.models.counter import Counter
from trainer.train import checkpoint
from trainer.train.predict import predict_logits
from trainer.train.run_files import BEST_CHECKPOINT

Probabilities = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a model: metrics of each photo set, and the predicted distribution of each photo."""

    model: str
    name: str
    """The split of the photos, or "all"."""
    data: dict[str, object]
    hardware: str
    metrics: dict[str, Metrics]
    """Name of a photo set → metrics; the main photo set is the first."""
    photos: PhotoSet
    distribution: Probabilities
    """Probabilities of the quantities, float (photos, quantities), in the order of `photos`."""
    classes: tuple[int, ...] = CLASS_INDEXES
    """Indexes of the classes that the model can predict."""
    rule: CountRule = CountRule.MODE
    """How a distribution becomes a count."""

    @property
    def probabilities(self) -> Probabilities:
        """Probabilities of the classes, float (photos, classes)."""
        return class_probabilities(self.distribution)

    def limits(self) -> str:
        """Return a sentence about the classes that the model cannot predict; empty if it can predict all."""
        absent = [index for index in CLASS_INDEXES if index not in self.classes]
        if not absent:
            return ""
        photos = int(np.isin(self.photos.labels, absent).sum())
        count = pluralize(photos, "shows that, and counts", "show that, and count")
        return f"The model cannot predict {column_names(absent)}; {photos:,} of these photos {count} as wrong."

    @property
    def main(self) -> Metrics:
        """Metrics of the main photo set: all photos, or with the challenge's protocol those of 0 to 5 items."""
        return next(iter(self.metrics.values()))

    def as_json(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        return {
            "model": self.model,
            "split": self.name,
            "answers": list(self.classes),
            "data": self.data,
            "hardware": self.hardware,
            "metrics": {name: metrics.model_dump() for name, metrics in self.metrics.items()},
        }


@dataclass(frozen=True)
class MajorityClasses:
    """The most common classes of the training photos, which a baseline model would always predict."""

    overall: int
    """Most common class of all photos."""
    up_to_five: int
    """Most common class of the photos that show at most 5 items."""


@dataclass(frozen=True)
class Sample:
    """The photos that a model is measured on."""

    name: str
    photos: PhotoSet
    majority: MajorityClasses
    facts: dict[str, object]


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to evaluate: a bundle's variant, or a checkpoint."""

    name: str
    classes: tuple[int, ...]
    """Indexes of the classes that the model can predict."""
    data: Callable[[], DataConfig]
    """Returns the configuration of its training data, with changes. Raises ConfigError if it is not fully known."""
    rule: CountRule
    """How a distribution becomes a count."""
    predict: Callable[[PhotoSet], Probabilities]
    """Photos → distributions, float (photos, quantities), with the preprocessing that workers use."""
    train: TrainConfig
    """Configuration of the device and the precision with which it computes."""


def open_model(
    path: Path, changes: dict[str, Any], display: Display, preferred: Sequence[Precision] = ()
) -> EvaluatedModel:
    """Open the checkpoint or the bundle at `path`. `changes` replace options of its data set ("photos", …)."""
    if path.is_dir():
        return open_bundle(Bundle(path), preferred, changes, display)
    saved = checkpoint.load(path)
    train, data = devices.for_inference(saved.config.train), saved.config.data
    devices.set_up(train)

    def predict(photos: PhotoSet) -> Probabilities:
        resized = replace(photos, size=data.size, jpeg_quality=data.jpeg_quality or None)
        return softmax(torch_logits(saved.model(), resized, train, display))

    return EvaluatedModel(
        f"{path.name} after epoch {saved.epoch}, not calibrated", saved.classes,
        lambda: _data_config(path, data.model_dump(), changes), CountRule.MODE, predict, train,
    )  # fmt: skip


def open_bundle(
    bundle: Bundle, preferred: Sequence[Precision], changes: dict[str, Any], display: Display
) -> EvaluatedModel:
    """Open the first of the `preferred` variants that the bundle has. Without preference, open its first variant."""
    card = bundle.card
    available = (variant for variant in preferred if variant in card.variants)
    variant = next(available, None) or next(iter(preferred or card.variants))

    def predict(photos: PhotoSet) -> Probabilities:
        resized = replace(photos, size=card.input_size, jpeg_quality=card.jpeg_quality)
        return bundle_probabilities(bundle, variant, resized, display)

    return EvaluatedModel(
        f"{card.version} {variant}", card.answers, lambda: bundle_data(bundle, changes), card.count_rule, predict,
        TrainConfig(),
    )  # fmt: skip


def evaluate(
    path: Path,
    split: Split | None,
    changes: dict[str, Any],
    display: Display,
    precision: Precision | None = None,
    *,
    challenge: bool = False,
) -> Evaluation:
    """Measure the checkpoint or the bundle at `path` on a split, or on all photos of the index if `split` is None.

    `changes` replace options of its data set ("photos", …). `challenge` limits the metrics to the ABID protocol.
    """
    model = open_model(path, changes, display, (precision,) if precision else ())
    sample = read_sample(model.data(), split, display)
    distribution = model.predict(sample.photos)
    metrics = measure_photo_sets(distribution, sample.photos, sample.majority, sample.name, model.rule)
    if challenge:
        metrics = {name: found for name, found in metrics.items() if name.endswith("(challenge)")}
    if not metrics:
        raise DataError(f"no photo is labelled 0 to {MORE_THAN_5 - 1}: there is nothing for --challenge to measure")
    return Evaluation(
        model.name, sample.name, sample.facts, devices.describe_hardware(model.train), metrics, sample.photos,
        distribution, model.classes, model.rule,
    )  # fmt: skip


def read_sample(config: DataConfig, split: Split | None, display: Display) -> Sample:
    """Read a split of the data set, or all photos of its index, even if they are too few to train with."""
    if split is not None:
        data = read_data(config, display)
        return Sample(split.value, data[split], majority_classes(data[Split.TRAIN]), data.facts())
    photos, missing, unreadable = read_photos(config.model_copy(update={"split_column": ""}), display)
    facts: dict[str, object] = {"photos": len(photos), "missing": len(missing), "unreadable": len(unreadable)}
    return Sample(ALL_PHOTOS, photos, majority_classes(photos), facts)


def bundle_data(bundle: Bundle, changes: dict[str, Any]) -> DataConfig:
    """Return the data set that the bundle's card names, with `changes`. Raises ConfigError if it is not known.

    The card contains the names of photos and index without their folders, so they are expected in the current folder.
    """
    saved = bundle.card.training.get("config", {}).get("data", {})
    changes = _without_lost_index(saved, changes)
    absent = [name for name in ("photos", "index") if saved.get(name) and name not in changes]
    if absent and not all(Path(saved[name]).exists() for name in absent):
        raise ConfigError(
            f"{bundle.folder}: the photos that it was trained on are not known; give --photos and --index"
        )
    preprocessing = {"size": bundle.card.input_size, "jpeg_quality": bundle.card.jpeg_quality or 0}
    return _data_config(bundle.folder, saved | preprocessing, changes)


def bundle_probabilities(
    bundle: Bundle, precision: Precision, photos: PhotoSet, display: Display
) -> npt.NDArray[np.float32]:
    """Predict the distributions of photos by a variant, float32 (photos, quantities), with a progress bar."""
    model = OnnxModel.from_bundle(bundle, precision)
    description = f"counting by {bundle.card.version}"
    return run(model, photos, lambda batches: display.track(batches, len(photos), description, len))[0]


def torch_logits(model: Counter, photos: PhotoSet, config: TrainConfig, display: Display) -> npt.NDArray[np.float32]:
    """Compute the logits of photos, float32 (photos, quantities), with a progress bar."""
    loader = PhotoLoader(photos, 16, seed=0, augment=None, shuffle=False, threads=config.readers)

    def progress(batches: Iterator[Batch]) -> Iterator[Batch]:
        return track(display, batches, len(photos), "counting")

    return predict_logits(model.to(config.device), loader, config, progress)


def majority_classes(photos: PhotoSet) -> MajorityClasses:
    """Return the most common classes of `photos`."""
    photos_per_class = np.bincount(photos.labels, minlength=MORE_THAN_5 + 1)
    return MajorityClasses(int(photos_per_class.argmax()), int(photos_per_class[:MORE_THAN_5].argmax()))


def measure_photo_sets(
    distribution: Probabilities,
    photos: PhotoSet,
    majority: MajorityClasses,
    name: str,
    rule: CountRule = CountRule.MODE,
) -> dict[str, Metrics]:
    """Measure the same distributions on five photo sets; empty sets are left out.

    The sets are: all photos, counted by `rule`; photos of 0 to 5 items, counted by `rule`; photos of 0 to 5 items, and
    of 1 to 5 items, by the ABID challenge's protocol, in which only these classes can be predicted; and all photos,
    counted by the other rule. Errors over all quantities are measured on the first two sets.
    """
    labels: Ints = photos.labels
    counts = counts_of(distribution, labels, photos.groups, rule)
    (other,) = set(CountRule) - {rule}
    few, all_photos = majority.up_to_five, np.ones(len(labels), np.bool_)
    photo_sets = {
        name: (counts, majority.overall, all_photos),
        f"{name} 0-5": (counts.select(labels < MORE_THAN_5), few, labels < MORE_THAN_5),
        f"{name} 0-5 (challenge)": (challenge_counts(distribution, labels, photos.groups), few, None),
        f"{name} 1-5 (challenge)": (challenge_counts(distribution, labels, photos.groups, low=1), few, None),
        f"{name} ({other})": (counts_of(distribution, labels, photos.groups, other), majority.overall, None),
    }
    return {
        name: measure(counts, baseline).model_copy(update={"quantities": _quantity_errors(distribution, photos, mask)})
        for name, (counts, baseline, mask) in photo_sets.items()
        if len(counts.labels)
    }


def _quantity_errors(
    distribution: Probabilities, photos: PhotoSet, mask: npt.NDArray[np.bool_] | None
) -> QuantityErrors | None:
    """Measure errors over all quantities, on photos in `mask` with an exact label; None if there are none."""
    if mask is None or not (mask & (photos.targets >= 0)).any():
        return None
    positions = np.flatnonzero(mask & (photos.targets >= 0))
    groups = photos.groups
    return quantity_errors(
        distribution[positions], photos.quantities[positions], [groups[position] for position in positions]
    )


def report_file(model: Path, photos: str, variant: Precision | None) -> Path:
    """Return the default path of the JSON file, in a folder beside the model. Its name says what was evaluated."""
    resolved = model.resolve()
    model_name = "" if resolved.name == BEST_CHECKPOINT else resolved.name if resolved.is_dir() else resolved.stem
    return model.parent / "evaluation" / f"{'-'.join(filter(None, [photos, model_name, variant]))}.json"


def _data_config(path: Path, saved: dict[str, Any], changes: dict[str, Any]) -> DataConfig:
    try:
        return DataConfig.model_validate({**saved, **_without_lost_index(saved, changes)})
    except ValidationError as error:
        missing = ", ".join(str(part) for problem in error.errors() for part in problem["loc"])
        file = CARD_FILE if path.is_dir() else path.name
        raise ConfigError(f"{path}: {file} does not say which {missing}; give --photos and --index") from error


def _without_lost_index(saved: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `changes`, without an index if that of `saved` is lost and the new photos are in quantity folders."""
    index = saved.get("index")
    index_lost = "photos" in changes and "index" not in changes and not (index and Path(index).exists())
    if index_lost and folders.has_quantity_folders(Path(changes["photos"])):
        return changes | {"index": None, "split_column": ""}
    return changes
