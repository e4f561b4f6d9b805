"""`export`: checkpoint → bundle. Its figures are measured on the files of the bundle themselves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from binwatch.bundle import Bundle, Card, Metrics, Precision, SelfCheck, Variant, describe, write_card
from binwatch.counts import CLASSES, EVERY, CountRule, names_of
from trainer.config import DataConfig
from trainer.data.dataset import DataSet, PhotoSet
from trainer.data.loading import read_data
from trainer.data.split import Split
from trainer.disk import check_free_space, make_folder
from trainer.display import Display
from trainer.distributed import devices
from trainer.evaluation.evaluate import figures, majorities, torch_logits
from trainer.evaluation.onnx_model import OnnxModel, photos_per_second, run, self_check_of
from trainer.evaluation.temperature import PriorShift, best_temperature, calibration_note, softmax
from trainer.export import parity
from trainer.export.conformal import calibration_of
from trainer.export.graph import write_onnx
from trainer.export.model_outputs import ModelOutputs
from trainer.export.quantize import write_fp16, write_int8
from trainer.export.reference import reference_of, small_reference_notes
from trainer.train import checkpoint
from trainer.train.checkpoint import Checkpoint
from trainer.train.distillation import TEACHERS

CALIBRATION_PHOTOS = 128
SPEED_PHOTOS = 32
BATCH_CHECK_PHOTOS = 8

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ExportOptions:
    """What to export and how to describe it."""

    variants: tuple[Precision, ...]
    max_loss: float = parity.MAX_LOSS
    version: str = ""
    notes: tuple[str, ...] = ()
    rule: CountRule = CountRule.MODE


@dataclass(frozen=True)
class Checked:
    """A file that passed all checks, its figures on test photos, and its differences from the trained network."""

    file: Path
    test: dict[str, Metrics]
    parity: dict[str, float]
    on_validation: ModelOutputs
    on_test: ModelOutputs
    photos_per_second: float
    self_check: SelfCheck

    def variant(self) -> Variant:
        """The card's entry."""
        short = ("accuracy", "rmse", "mae", "within_one", "ece")
        found: dict[str, Any] = {
            name: {figure: getattr(metrics, figure).model_dump() for figure in short}
            for name, metrics in self.test.items()
        }
        for name, metrics in self.test.items():
            if metrics.quantities:
                found[name]["quantities"] = metrics.quantities.model_dump()
        found |= {"parity": self.parity, "photos_per_second": round(self.photos_per_second, 1)}
        return describe(self.file, found, self.self_check)


class Exporter:
    """One trained network, its data, and the outputs that its files are compared with."""

    def __init__(self, saved: Checkpoint, data: DataSet, rule: CountRule, display: Display) -> None:
        self.saved = saved
        self.rule = rule
        self.data = data
        self.display = display
        self.model = saved.model()
        # On the CPU, like the files: the rounding of a GPU's convolutions exceeds the tolerance of fp32.
        config = saved.config.train.model_copy(update={"device": "cpu", "precision": "fp32"})
        devices.prepare(config)
        validation = data[Split.VALIDATION]
        logits = torch_logits(self.model, validation, config, display)
        self.scale = fit_scaling(saved, logits, validation.labels)
        self.wanted = softmax(logits, self.scale.temperature, self.scale.shift)

    def write(self, folder: Path, wanted: Sequence[Precision]) -> dict[Precision, Path]:
        """Write ONNX files into `folder`, not yet checked. fp32 is always written: the others are made from it."""
        files = {precision: folder / f"model-{precision}.onnx" for precision in Precision}
        write_onnx(
            self.model, self.scale.temperature, files[Precision.FP32], self.saved.config.data.size, self.scale.shift
        )
        if Precision.INT8 in wanted:
            train = self.data[Split.TRAIN]
            spread = np.linspace(0, len(train) - 1, min(CALIBRATION_PHOTOS, len(train))).astype(int)
            pixels = train.pixels(spread.tolist())
            what = "int8: ranges of activations"
            write_int8(
                files[Precision.FP32],
                files[Precision.INT8],
                pixels,
                lambda batches: self.display.track(batches, len(pixels), what, len),
            )
        if Precision.FP16 in wanted:
            write_fp16(files[Precision.FP32], files[Precision.FP16])
        return {precision: file for precision, file in files.items() if file.exists()}

    def check(self, file: Path, precision: Precision, max_loss: float) -> Checked:
        """Compare a file with the trained network, then measure it. Raises ExportError if it differs too much."""
        model = OnnxModel(file)
        validation, test = self.data[Split.VALIDATION], self.data[Split.TEST]
        parity.check_batches(file, model, _first(validation, BATCH_CHECK_PHOTOS))
        on_validation = self._outputs(model, precision, Split.VALIDATION)
        found = on_validation.distribution
        difference = parity.check_outputs(file, precision, found, self.wanted)
        lost = parity.check_accuracy(file, found, self.wanted, validation.labels, max_loss, self.rule)
        difference["validation_accuracy_lost"] = lost
        on_test = self._outputs(model, precision, Split.TEST)
        return Checked(
            file=file,
            test=figures(on_test.distribution, test, majorities(self.data), Split.TEST.value, self.rule),
            parity=difference,
            on_validation=on_validation,
            on_test=on_test,
            photos_per_second=photos_per_second(model, _first(test, SPEED_PHOTOS)),
            self_check=self_check_of(model),
        )

    def card(self, checked: dict[Precision, Checked], options: ExportOptions) -> Card:
        """The card, without the files that were not requested."""
        model = self.saved.config.model
        created = datetime.now(UTC).replace(microsecond=0)
        shipped = next(checked[precision] for precision in Precision if precision in options.variants)
        reference = reference_of(shipped.on_validation)
        return Card(
            version=options.version or f"{model.architecture}-{created:%Y%m%d-%H%M}",
            architecture=model.architecture,
            created=created,
            highest=model.highest,
            count_rule=self.rule,
            answers=self.saved.classes,
            embedding_size=self.model.head.size,
            input_size=self.saved.config.data.size,
            jpeg_quality=self.saved.config.data.jpeg_quality or None,
            temperature=self.scale.temperature,
            variants={precision: checked[precision].variant() for precision in options.variants},
            metrics=checked[Precision.FP32].test,
            reference=reference,
            calibration=calibration_of(shipped.on_test),
            training=training_facts(self.saved),
            notes=[
                *options.notes,
                *limitation_notes(self.saved),
                *calibration_note(self.scale.temperature, self.scale.photos),
                *class_share_notes(prior_shift(self.saved)),
                *small_reference_notes(reference),
                *teacher_notes(self.saved),
            ],
        )

    def _outputs(self, model: OnnxModel, precision: Precision, split: Split) -> ModelOutputs:
        photos, what = self.data[split], f"{precision} on {split} photos"
        found = run(model, photos, lambda chunks: self.display.track(chunks, len(photos), what, len))
        return ModelOutputs(photos, split, *found, self.saved.classes, self.rule)


def export(path: Path, folder: Path, options: ExportOptions, data: dict[str, Any], display: Display) -> Card:
    """Write a bundle of the checkpoint at `path` into `folder`, completely or not at all.

    `data` replaces options of the checkpoint's data set ("photos", …).
    """
    saved = checkpoint.load(path)
    make_folder(folder.parent)
    # Before minutes of work. The files of all variants take less than twice the space of the weights.
    need = 2 * sum(weight.nbytes for weight in saved.weights.values())
    check_free_space(folder.parent, need, "the files", "make room or choose another --out")
    photos = read_data(DataConfig.model_validate(saved.config.data.model_dump() | data), display)
    exporter = Exporter(saved, photos, options.rule, display)
    with _workshop(folder) as work:
        files = exporter.write(work, options.variants)
        checked = {precision: exporter.check(file, precision, options.max_loss) for precision, file in files.items()}
        card = exporter.card(checked, options)
        _move(work, folder, card)
    return Bundle(folder).card


@dataclass(frozen=True, slots=True)
class Scale:
    """How logits become probabilities: softmax(logits / temperature + shift)."""

    temperature: float
    shift: npt.NDArray[np.float64]
    """float64 (quantities,): see `PriorShift`."""
    photos: int
    """Number of photos that the temperature was fitted to."""


def fit_scaling(saved: Checkpoint, logits: Floats, labels: npt.NDArray[np.int64]) -> Scale:
    """The scale fitted to the logits of photos, float32 (photos, quantities), and their classes, int64 (photos,)."""
    known = np.isin(labels, saved.classes)  # a class that the model cannot predict has a probability of 0 at any T
    prior = prior_shift(saved)
    temperature = best_temperature(logits[known], labels[known], prior)
    quantities = logits.shape[1]
    shift = np.zeros(quantities) if prior is None else prior.logits(quantities)
    return Scale(temperature, shift, int(known.sum()))


def prior_shift(saved: Checkpoint) -> PriorShift | None:
    """The shift from the classes' shares among training photos to data.class_shares; None if these are not set."""
    shares = saved.config.data.class_shares
    if not shares:
        return None
    return PriorShift(tuple(share / sum(shares) for share in shares), tuple(saved.facts["data"]["labels"][Split.TRAIN]))


def class_share_notes(shift: PriorShift | None) -> list[str]:
    """A note for the card, if probabilities were corrected to other shares of the classes."""
    if shift is None:
        return []
    shares = ", ".join(f"{name}: {share:.1%}" for name, share in zip(CLASSES, shift.shares, strict=True))
    return [f"Probabilities assume these shares of bins by number of items: {shares} (data.class_shares)."]


def training_facts(saved: Checkpoint) -> dict[str, Any]:
    """Data, split, duration, hardware and configuration. Files are named without folders, which are private."""
    config = saved.config.model_dump(mode="json")
    config["data"] |= {name: Path(found).name for name in ("photos", "index") if (found := config["data"][name])}
    config["model"]["weights"] = Path(config["model"]["weights"]).name
    config["distil"]["teachers"] = _teachers(saved)
    return {"epoch": saved.epoch, **saved.facts, "config": config}


def _teachers(saved: Checkpoint) -> list[str]:
    return [teacher["name"] for teacher in saved.facts.get(TEACHERS, [])]


def teacher_notes(saved: Checkpoint) -> list[str]:
    """A note for the card, if there were teachers."""
    names = _teachers(saved)
    share = saved.config.distil.share
    return [f"Learned {share:.0%} from the mean output of {', '.join(names)}; the rest from labels."] if names else []


def limitation_notes(saved: Checkpoint) -> list[str]:
    """A note for the card, if there are classes that the model cannot predict."""
    never = [index for index in EVERY if index not in saved.classes]
    return [f"Cannot predict {names_of(never)}: no training photo shows these."] if never else []


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` for files that are not checked yet. Files of a killed export are deleted from it."""
    whole = folder.resolve()
    work = whole.with_name(f"{whole.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    make_folder(work)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _first(photos: PhotoSet, count: int) -> npt.NDArray[np.uint8]:
    return photos.pixels(range(min(count, len(photos))))


def _move(work: Path, folder: Path, card: Card) -> None:
    """Move the files into `folder`, and write the card last: a folder without a card is no bundle."""
    make_folder(folder)
    for variant in card.variants.values():
        shutil.move(work / variant.file, folder / variant.file)
    write_card(folder, card)
