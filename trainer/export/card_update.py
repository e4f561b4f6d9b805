"""New parts for the card of an existing bundle, whose ONNX files stay as they are.

Calibration and drift reference are made from photos that the model was not trained on.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from binwatch.bundle import Bundle, Card, write_card
from trainer.data.loading import read_photos
from trainer.data.split import ALL, Split
from trainer.display import Display
from trainer.errors import DataError
from trainer.evaluation.evaluate import bundle_data
from trainer.evaluation.onnx_model import OnnxModel, run, self_check_of
from trainer.export.conformal import calibration_of
from trainer.export.model_outputs import ModelOutputs
from trainer.export.parts import CardPart
from trainer.export.reference import reference_of

MAKE = {CardPart.CALIBRATION: calibration_of, CardPart.REFERENCE: reference_of}
SPLITS = {CardPart.CALIBRATION: Split.TEST, CardPart.REFERENCE: Split.VALIDATION}
"""As in `export`. P-values need photos that nothing was fitted to; epoch and temperature follow from validation photos.
"""


def update(
    folder: Path,
    photos: Path,
    index: Path | None,
    parts: Collection[CardPart],
    display: Display,
    *,
    split: Split | None = None,
    every: bool = False,
) -> Card:
    """Write new `parts` into the card of the bundle in `folder`, all of them or none.

    Each is made from the model's outputs for the photos of its own split (or of `split`), which follows from the
    model's data set, or for `every` photo. Raises DataError if there are no such photos.
    """
    bundle = Bundle(folder)
    wanted = {part: None if every else split or SPLITS[part] for part in parts}
    found = {name: outputs_of(bundle, photos, index, name, display) for name in dict.fromkeys(wanted.values())}
    card = bundle.card.model_copy(update={part.value: MAKE[part](found[name]) for part, name in wanted.items()})
    write_card(folder, card)
    return card


def add_self_check(folder: Path) -> Card:
    """Write the outputs of each file of a bundle for a few generated images, on this machine, into its card."""
    bundle = Bundle(folder)
    variants = {
        precision: variant.model_copy(update={"self_check": self_check_of(OnnxModel(bundle.model(precision)))})
        for precision, variant in bundle.card.variants.items()
    }
    card = bundle.card.model_copy(update={"variants": variants})
    write_card(folder, card)
    return card


def outputs_of(bundle: Bundle, photos: Path, index: Path | None, split: Split | None, display: Display) -> ModelOutputs:
    """Outputs of a bundle's first variant for the photos of a split, or (None) for all. Raises DataError if none."""
    config = bundle_data(bundle, {"photos": photos} | ({"index": index} if index else {}))
    if split is None:
        config = config.model_copy(update={"split_column": ""})
    every, _, _ = read_photos(config, display)
    chosen = every.of(split) if split else every
    if not chosen:
        raise DataError(
            f"{config.labels}: no photo of the {split} split; name another with --split, or take all with --every"
        )
    model = OnnxModel.of(bundle, next(iter(bundle.card.variants)))
    what = f"counting by {bundle.card.version}"
    found = run(model, chosen, lambda each: display.track(each, len(chosen), what, len))
    return ModelOutputs(chosen, split or ALL, *found, bundle.card.answers, bundle.card.count_rule)
