"""`export`: checkpoint → bundle. The card's figures are measured on the exported files themselves."""

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

from binwatch.bundle import Bundle, Card, Metrics, Precision, SelfCheck, Variant, make_variant, write_card
from binwatch.counts import CLASS_INDEXES, CLASSES, CountRule, column_names
from trainer.config import DataConfig
from trainer.data.dataset import DataSet, PhotoSet
from trainer.data.loading import read_data
from trainer.data.split import Split
from trainer.disk import check_free_space, make_folder
from trainer.display import Display
from trainer.distributed import devices
from trainer.evaluation.evaluate import majority_classes, measure_photo_sets, torch_logits
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
from trainer.train.distillation import TEACHERS_FACT

MAX_INT8_PHOTOS = 128
"""Maximum number of training photos from which int8 quantisation takes the ranges of activations."""
SPEED_PHOTOS = 32
"""Maximum number of photos with which a file's speed is measured."""
BATCH_CHECK_PHOTOS = 8
"""Maximum number of photos for checking that outputs do not depend on the batch size."""

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
class CheckedFile:
    """An ONNX file that passed all checks, with its measurements."""

    file: Path
    test: dict[str, Metrics]
    """The figures on test photos."""
    parity: dict[str, float]
    """The differences from the trained network."""
    on_validation: ModelOutputs
    on_test: ModelOutputs
    photos_per_second: float
    self_check: SelfCheck

    def variant(self) -> Variant:
        """Return the file's entry in the card."""
        figures = ("accuracy", "rmse", "mae", "within_one", "ece")
        measured: dict[str, Any] = {
            name: {figure: getattr(metrics, figure).model_dump() for figure in figures}
            for name, metrics in self.test.items()
        }
        for name, metrics in self.test.items():
            if metrics.quantities:
                measured[name]["quantities"] = metrics.quantities.model_dump()
        measured |= {"parity": self.parity, "photos_per_second": round(self.photos_per_second, 1)}
        return make_variant(self.file, measured, self.self_check)


class Exporter:
    """Exports one trained network, and compares the exported files with its outputs."""

    def __init__(self, saved: Checkpoint, data: DataSet, rule: CountRule, display: Display) -> None:
        self.saved = saved
        self.rule = rule
        self.data = data
        self.display = display
        self.model = saved.model()
        # On the CPU, like the files: the rounding errors of a GPU's convolutions exceed the tolerance of fp32.
        config = saved.config.train.model_copy(update={"device": "cpu", "precision": "fp32"})
        devices.set_up(config)
        validation = data[Split.VALIDATION]
        logits = torch_logits(self.model, validation, config, display)
        self.scaling = fit_scaling(saved, logits, validation.labels)
        self.expected = softmax(logits, self.scaling.temperature, self.scaling.shift)
        """The network's distributions for the validation photos, with which those of each file are compared."""

    def write(self, folder: Path, precisions: Sequence[Precision]) -> dict[Precision, Path]:
        """Write unchecked ONNX files into `folder`. fp32 is always written, because the others are made from it."""
        files = {precision: folder / f"model-{precision}.onnx" for precision in Precision}
        write_onnx(
            self.model, self.scaling.temperature, files[Precision.FP32], self.saved.config.data.size, self.scaling.shift
        )
        if Precision.INT8 in precisions:
            train = self.data[Split.TRAIN]
            positions = np.linspace(0, len(train) - 1, min(MAX_INT8_PHOTOS, len(train))).astype(int)
            pixels = train.pixels(positions.tolist())
            what = "int8: ranges of activations"
            write_int8(
                files[Precision.FP32],
                files[Precision.INT8],
                pixels,
                lambda batches: self.display.track(batches, len(pixels), what, len),
            )
        if Precision.FP16 in precisions:
            write_fp16(files[Precision.FP32], files[Precision.FP16])
        return {precision: file for precision, file in files.items() if file.exists()}

    def check(self, file: Path, precision: Precision, max_loss: float) -> CheckedFile:
        """Compare a file with the trained network, and measure it. Raises ExportError if it differs too much."""
        model = OnnxModel(file)
        validation, test = self.data[Split.VALIDATION], self.data[Split.TEST]
        parity.check_batches(file, model, _first(validation, BATCH_CHECK_PHOTOS))
        on_validation = self._outputs(model, precision, Split.VALIDATION)
        actual = on_validation.distribution
        differences = parity.check_outputs(file, precision, actual, self.expected)
        lost = parity.check_accuracy(file, actual, self.expected, validation.labels, max_loss, self.rule)
        differences["validation_accuracy_lost"] = lost
        on_test = self._outputs(model, precision, Split.TEST)
        return CheckedFile(
            file=file,
            test=measure_photo_sets(
                on_test.distribution, test, majority_classes(self.data[Split.TRAIN]), Split.TEST.value, self.rule
            ),
            parity=differences,
            on_validation=on_validation,
            on_test=on_test,
            photos_per_second=photos_per_second(model, _first(test, SPEED_PHOTOS)),
            self_check=self_check_of(model),
        )

    def card(self, checked: dict[Precision, CheckedFile], options: ExportOptions) -> Card:
        """Create the card, with the requested variants only."""
        model = self.saved.config.model
        created = datetime.now(UTC).replace(microsecond=0)
        # The first requested variant, in the order of Precision, gives the calibration and the drift reference.
        first = next(checked[precision] for precision in Precision if precision in options.variants)
        reference = reference_of(first.on_validation)
        return Card(
            version=options.version or f"{model.architecture}-{created:%Y%m%d-%H%M}",
            architecture=model.architecture,
            created=created,
            highest=model.highest,
            count_rule=self.rule,
            answers=self.saved.classes,
            embedding_size=self.model.head.embedding_size,
            input_size=self.saved.config.data.size,
            jpeg_quality=self.saved.config.data.jpeg_quality or None,
            temperature=self.scaling.temperature,
            variants={precision: checked[precision].variant() for precision in options.variants},
            metrics=checked[Precision.FP32].test,
            reference=reference,
            calibration=calibration_of(first.on_test),
            training=training_facts(self.saved),
            notes=[
                *options.notes,
                *limitation_notes(self.saved),
                *calibration_note(self.scaling.temperature, self.scaling.photos),
                *class_share_notes(prior_shift(self.saved)),
                *small_reference_notes(reference),
                *teacher_notes(self.saved),
            ],
        )

    def _outputs(self, model: OnnxModel, precision: Precision, split: Split) -> ModelOutputs:
        photos, what = self.data[split], f"{precision} on {split} photos"
        outputs = run(model, photos, lambda chunks: self.display.track(chunks, len(photos), what, len))
        return ModelOutputs(photos, split, *outputs, self.saved.classes, self.rule)


def export(path: Path, folder: Path, options: ExportOptions, data: dict[str, Any], display: Display) -> Card:
    """Export the checkpoint at `path` as a bundle in `folder`, completely or not at all.

    `data` overrides options of the checkpoint's data set ("photos", …).
    """
    saved = checkpoint.load(path)
    make_folder(folder.parent)
    # Checked before minutes of work. The files of all variants take less than twice the space of the weights.
    need = 2 * sum(weight.nbytes for weight in saved.weights.values())
    check_free_space(folder.parent, need, "the files", "make room or choose another --out")
    photos = read_data(DataConfig.model_validate(saved.config.data.model_dump() | data), display)
    exporter = Exporter(saved, photos, options.rule, display)
    with _partial_folder(folder) as work:
        files = exporter.write(work, options.variants)
        checked = {precision: exporter.check(file, precision, options.max_loss) for precision, file in files.items()}
        card = exporter.card(checked, options)
        _move_files(work, folder, card)
    return Bundle(folder).card


@dataclass(frozen=True, slots=True)
class Scaling:
    """How logits become probabilities: softmax(logits / temperature + shift)."""

    temperature: float
    shift: npt.NDArray[np.float64]
    """float64 (quantities,): see `PriorShift`."""
    photos: int
    """Number of photos that the temperature was fitted to."""


def fit_scaling(saved: Checkpoint, logits: Floats, labels: npt.NDArray[np.int64]) -> Scaling:
    """Fit the scaling to the logits of photos, float32 (photos, quantities), and their classes, int64 (photos,)."""
    # The model cannot predict the other classes: they have a probability of 0 at any temperature.
    predictable = np.isin(labels, saved.classes)
    prior = prior_shift(saved)
    temperature = best_temperature(logits[predictable], labels[predictable], prior)
    quantities = logits.shape[1]
    shift = np.zeros(quantities) if prior is None else prior.logits(quantities)
    return Scaling(temperature, shift, int(predictable.sum()))


def prior_shift(saved: Checkpoint) -> PriorShift | None:
    """Return the shift from the class shares of the training photos to data.class_shares; None if these are not set."""
    shares = saved.config.data.class_shares
    if not shares:
        return None
    return PriorShift(tuple(share / sum(shares) for share in shares), tuple(saved.facts["data"]["labels"][Split.TRAIN]))


def class_share_notes(shift: PriorShift | None) -> list[str]:
    """Return a note for the card if probabilities were corrected to other class shares."""
    if shift is None:
        return []
    shares = ", ".join(f"{name}: {share:.1%}" for name, share in zip(CLASSES, shift.shares, strict=True))
    return [f"Probabilities assume these shares of bins by number of items: {shares} (data.class_shares)."]


def training_facts(saved: Checkpoint) -> dict[str, Any]:
    """Return data, split, duration, hardware and configuration. Files are named without folders, which are private."""
    config = saved.config.model_dump(mode="json")
    config["data"] |= {name: Path(path).name for name in ("photos", "index") if (path := config["data"][name])}
    config["model"]["weights"] = Path(config["model"]["weights"]).name
    config["distil"]["teachers"] = _teachers(saved)
    return {"epoch": saved.epoch, **saved.facts, "config": config}


def _teachers(saved: Checkpoint) -> list[str]:
    return [teacher["name"] for teacher in saved.facts.get(TEACHERS_FACT, [])]


def teacher_notes(saved: Checkpoint) -> list[str]:
    """Return a note for the card if the model was distilled from teachers."""
    names = _teachers(saved)
    share = saved.config.distil.share
    return [f"Learned {share:.0%} from the mean output of {', '.join(names)}; the rest from labels."] if names else []


def limitation_notes(saved: Checkpoint) -> list[str]:
    """Return a note for the card if there are classes that the model cannot predict."""
    missing = [index for index in CLASS_INDEXES if index not in saved.classes]
    return [f"Cannot predict {column_names(missing)}: no training photo shows these."] if missing else []


@contextmanager
def _partial_folder(folder: Path) -> Iterator[Path]:
    """Create an empty folder beside `folder` for unchecked files, and delete it afterwards.

    Files that a killed export has left there are deleted.
    """
    absolute = folder.resolve()
    work = absolute.with_name(f"{absolute.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    make_folder(work)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _first(photos: PhotoSet, count: int) -> npt.NDArray[np.uint8]:
    return photos.pixels(range(min(count, len(photos))))


def _move_files(work: Path, folder: Path, card: Card) -> None:
    """Move the files into `folder`, and then write the card: a folder without a card is not a bundle."""
    make_folder(folder)
    for variant in card.variants.values():
        shutil.move(work / variant.file, folder / variant.file)
    write_card(folder, card)
