"""`evaluate`: how good a checkpoint or a bundle is on labelled photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from binwatch.bundle import CARD, Bundle, Metrics, Precision, QuantityErrors
from binwatch.counts import EVERY, MORE, CountRule, in_classes, names_of
from binwatch.text import noun
from trainer.config import DataConfig, TrainConfig
from trainer.data import folders
from trainer.data.dataset import DataSet, PhotoSet
from trainer.data.loader import Batch
from trainer.data.loading import follow, read_data, read_photos
from trainer.data.photo_loader import PhotoLoader
from trainer.data.split import ALL, Split
from trainer.display import Display
from trainer.distributed import devices
from trainer.errors import ConfigError, DataError
from trainer.evaluation.metrics import Ints, challenge_counts, counts_of, measure, quantity_errors
from trainer.evaluation.onnx_model import OnnxModel, run
from trainer.evaluation.temperature import softmax
from trainer.models.counter import Counter
from trainer.train import checkpoint
from trainer.train.predict import logits_of
from trainer.train.run_files import BEST

Probabilities = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on some photos, by name of the photo set, and its distribution for each photo."""

    model: str
    name: str
    """The split of the photos, or "all"."""
    data: dict[str, object]
    hardware: str
    metrics: dict[str, Metrics]
    photos: PhotoSet
    distribution: Probabilities
    """float (photos, quantities), in the order of `photos`."""
    classes: tuple[int, ...] = EVERY
    """Indexes of the classes that the model can predict."""
    rule: CountRule = CountRule.MODE
    """How a distribution becomes a count."""

    @property
    def probabilities(self) -> Probabilities:
        """Probabilities of the classes, float (photos, classes)."""
        return in_classes(self.distribution)

    def limits(self) -> str:
        """A sentence that names the classes that the model cannot predict; empty if it can predict all."""
        never = [index for index in EVERY if index not in self.classes]
        if not never:
            return ""
        photos = int(np.isin(self.photos.labels, never).sum())
        count = noun(photos, "shows that, and counts", "show that, and count")
        return f"The model cannot predict {names_of(never)}; {photos:,} of these photos {count} as wrong."

    @property
    def main(self) -> Metrics:
        """Figures of the main photo set: all photos, or with the challenge's protocol those of 0 to 5 items."""
        return next(iter(self.metrics.values()))

    def as_json(self) -> dict[str, Any]:
        """What the JSON file contains."""
        return {
            "model": self.model,
            "split": self.name,
            "answers": list(self.classes),
            "data": self.data,
            "hardware": self.hardware,
            "metrics": {name: found.model_dump() for name, found in self.metrics.items()},
        }


@dataclass(frozen=True)
class Majorities:
    """The most common class of the training photos: of all, and of those that show at most 5 items."""

    overall: int
    up_to_five: int


@dataclass(frozen=True)
class Sample:
    """The photos to measure on."""

    name: str
    photos: PhotoSet
    majority: Majorities
    facts: dict[str, object]


@dataclass(frozen=True)
class EvaluatedModel:
    """A model that is evaluated: a bundle's variant, or a checkpoint."""

    name: str
    classes: tuple[int, ...]
    """Indexes of the classes that it can predict."""
    data: Callable[[], DataConfig]
    """Returns the data set that it was trained on, with changes. Raises ConfigError if that is not fully known."""
    rule: CountRule
    """How a distribution becomes a count."""
    predict: Callable[[PhotoSet], Probabilities]
    """Photos → distributions, float (photos, quantities), with the preprocessing that workers use."""
    train: TrainConfig
    """The device and the precision that it computes with."""


def open_model(
    path: Path, changes: dict[str, Any], display: Display, wanted: Sequence[Precision] = ()
) -> EvaluatedModel:
    """The checkpoint or the bundle at `path`, with `changes` of options of its data set ("photos", …)."""
    if path.is_dir():
        return open_bundle(Bundle(path), wanted, changes, display)
    saved = checkpoint.load(path)
    train, data = devices.where_possible(saved.config.train), saved.config.data
    devices.prepare(train)

    def predict(photos: PhotoSet) -> Probabilities:
        seen = replace(photos, size=data.size, jpeg_quality=data.jpeg_quality or None)
        return softmax(torch_logits(saved.model(), seen, train, display))

    return EvaluatedModel(
        f"{path.name} after epoch {saved.epoch}, not calibrated", saved.classes,
        lambda: _data_config(path, data.model_dump(), changes), CountRule.MODE, predict, train,
    )  # fmt: skip


def open_bundle(
    bundle: Bundle, wanted: Sequence[Precision], changes: dict[str, Any], display: Display
) -> EvaluatedModel:
    """The first variant of `wanted` that the bundle has; if `wanted` is empty, the first variant of the bundle."""
    card = bundle.card
    chosen = next((each for each in wanted if each in card.variants), None) or next(iter(wanted or card.variants))

    def predict(photos: PhotoSet) -> Probabilities:
        seen = replace(photos, size=card.input_size, jpeg_quality=card.jpeg_quality)
        return bundle_probabilities(bundle, chosen, seen, display)

    return EvaluatedModel(
        f"{card.version} {chosen}", card.answers, lambda: bundle_data(bundle, changes), card.count_rule, predict,
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
    """Measure the checkpoint or the bundle at `path`, on a split or (None) on every photo of the index.

    `changes` replace options of its data set ("photos", …). `challenge` gives the figures of the ABID protocol only.
    """
    model = open_model(path, changes, display, (precision,) if precision else ())
    sample = read_sample(model.data(), split, display)
    distribution = model.predict(sample.photos)
    found = figures(distribution, sample.photos, sample.majority, sample.name, model.rule)
    if challenge:
        found = {name: metrics for name, metrics in found.items() if name.endswith("(challenge)")}
    if not found:
        raise DataError(f"no photo is labelled 0 to {MORE - 1}: there is nothing for --challenge to measure")
    return Evaluation(
        model.name, sample.name, sample.facts, devices.hardware(model.train), found, sample.photos, distribution,
        model.classes, model.rule,
    )  # fmt: skip


def read_sample(config: DataConfig, split: Split | None, display: Display) -> Sample:
    """A split of the data set, or every photo of its index, which need not be enough to train with."""
    if split is not None:
        data = read_data(config, display)
        return Sample(split.value, data[split], majorities(data), data.facts())
    photos, missing, unreadable = read_photos(config.model_copy(update={"split_column": ""}), display)
    facts: dict[str, object] = {"photos": len(photos), "missing": len(missing), "unreadable": len(unreadable)}
    return Sample(ALL, photos, majorities_of(photos), facts)


def bundle_data(bundle: Bundle, changes: dict[str, Any]) -> DataConfig:
    """The data set that the bundle's card names, with `changes`. Raises ConfigError if that does not say enough.

    The card contains the names of photos and index without their folders, so they are looked for in the current folder.
    """
    saved = bundle.card.training.get("config", {}).get("data", {})
    changes = _of_folders(saved, changes)
    absent = [name for name in ("photos", "index") if saved.get(name) and name not in changes]
    if absent and not all(Path(saved[name]).exists() for name in absent):
        raise ConfigError(
            f"{bundle.folder}: the photos that it was trained on are not known; give --photos and --index"
        )
    seen = {"size": bundle.card.input_size, "jpeg_quality": bundle.card.jpeg_quality or 0}
    return _data_config(bundle.folder, saved | seen, changes)


def bundle_probabilities(
    bundle: Bundle, precision: Precision, photos: PhotoSet, display: Display
) -> npt.NDArray[np.float32]:
    """The distributions that one variant predicts for photos, float32 (photos, quantities), with a progress bar."""
    model = OnnxModel.of(bundle, precision)
    what = f"counting by {bundle.card.version}"
    return run(model, photos, lambda found: display.track(found, len(photos), what, len))[0]


def torch_logits(model: Counter, photos: PhotoSet, config: TrainConfig, display: Display) -> npt.NDArray[np.float32]:
    """Logits of photos, float32 (photos, quantities), with a progress bar."""
    batches = PhotoLoader(photos, 16, seed=0, augment=None, shuffle=False, threads=config.readers)

    def bar(found: Iterator[Batch]) -> Iterator[Batch]:
        return follow(display, found, len(photos), "counting")

    return logits_of(model.to(config.device), batches, config, bar)


def majorities(data: DataSet) -> Majorities:
    """The predictions of the simplest model, which any other should beat."""
    return majorities_of(data[Split.TRAIN])


def majorities_of(photos: PhotoSet) -> Majorities:
    """The most common classes of these photos."""
    found = np.bincount(photos.labels, minlength=MORE + 1)
    return Majorities(int(found.argmax()), int(found[:MORE].argmax()))


def figures(
    distribution: Probabilities, photos: PhotoSet, majority: Majorities, name: str, rule: CountRule = CountRule.MODE
) -> dict[str, Metrics]:
    """Figures of the same distributions on five photo sets.

    All photos, counted by `rule`; those that show 0 to 5, counted in the same way; those that show 0 to 5, and those
    that show 1 to 5, by the ABID challenge's protocol, in which only these classes can be predicted; and all photos,
    counted by the other rule. Errors over all quantities are given for the first two sets.
    """
    labels: Ints = photos.labels
    counts = counts_of(distribution, labels, photos.groups, rule)
    (other,) = set(CountRule) - {rule}
    few, every = majority.up_to_five, np.ones(len(labels), np.bool_)
    found = {
        name: (counts, majority.overall, every),
        f"{name} 0-5": (counts.where(labels < MORE), few, labels < MORE),
        f"{name} 0-5 (challenge)": (challenge_counts(distribution, labels, photos.groups), few, None),
        f"{name} 1-5 (challenge)": (challenge_counts(distribution, labels, photos.groups, low=1), few, None),
        f"{name} ({other})": (counts_of(distribution, labels, photos.groups, other), majority.overall, None),
    }
    return {
        name: measure(each, commonest).model_copy(update={"quantities": _quantities(distribution, photos, chosen)})
        for name, (each, commonest, chosen) in found.items()
        if len(each.labels)
    }


def _quantities(
    distribution: Probabilities, photos: PhotoSet, chosen: npt.NDArray[np.bool_] | None
) -> QuantityErrors | None:
    """Errors over all quantities, on the chosen photos whose true quantity is known; None if there are none."""
    if chosen is None or not (chosen & (photos.targets >= 0)).any():
        return None
    kept = np.flatnonzero(chosen & (photos.targets >= 0))
    groups = photos.groups
    return quantity_errors(distribution[kept], photos.quantities[kept], [groups[index] for index in kept])


def report_file(model: Path, photos: str, variant: Precision | None) -> Path:
    """The default file of the figures: in a folder beside the model, with a name that no other model's report has."""
    place = model.resolve()
    others = [] if place.name == BEST else [place.name if place.is_dir() else place.stem]
    return model.parent / "evaluation" / f"{'-'.join([photos, *others, *filter(None, [variant])])}.json"


def _data_config(path: Path, saved: dict[str, Any], changes: dict[str, Any]) -> DataConfig:
    try:
        return DataConfig.model_validate({**saved, **_of_folders(saved, changes)})
    except ValidationError as error:
        missing = ", ".join(str(part) for found in error.errors() for part in found["loc"])
        what = CARD if path.is_dir() else path.name
        raise ConfigError(f"{path}: {what} does not say which {missing}; give --photos and --index") from error


def _of_folders(saved: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes`, without an index if that of `saved` no longer exists and the new photos lie in quantity folders."""
    index = saved.get("index")
    elsewhere = "photos" in changes and "index" not in changes and not (index and Path(index).exists())
    if elsewhere and folders.holds_quantities(Path(changes["photos"])):
        return changes | {"index": None, "split_column": ""}
    return changes
