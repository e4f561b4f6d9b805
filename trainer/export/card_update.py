"""Replaces parts of an existing bundle's card: calibration, drift reference, self-check. ONNX files stay unchanged.

Calibration and drift reference are made from photos that the model was not trained on.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from binwatch.bundle import Bundle, Card, write_card
from trainer.data.loading import read_photos
from trainer.data.split import ALL_PHOTOS, Split
from trainer.display import Display
from trainer.errors import DataError
from trainer.evaluation.evaluate import bundle_data
from trainer.evaluation.onnx_model import OnnxModel, run, self_check_of
from trainer.export.conformal import calibration_of
from trainer.export.model_outputs import ModelOutputs
from trainer.export.parts import CardPart
from trainer.export.reference import reference_of

BUILDERS = {CardPart.CALIBRATION: calibration_of, CardPart.REFERENCE: reference_of}
"""The function that makes each part from a model's outputs."""
DEFAULT_SPLITS = {CardPart.CALIBRATION: Split.TEST, CardPart.REFERENCE: Split.VALIDATION}
"""The split from which each part is made by default, here and by `export`. P-values need photos that nothing was fitted
to, and epoch and temperature were chosen with the validation photos."""


def update_card(
    folder: Path,
    photos: Path,
    index: Path | None,
    parts: Collection[CardPart],
    display: Display,
    *,
    split: Split | None = None,
    all_photos: bool = False,
) -> Card:
    """Write new `parts` into the card of the bundle in `folder`, all of them or none.

    Each part is made from the model's outputs for the photos of its default split, of `split`, or with `all_photos`, of
    all photos. Photos are split as in the model's data set. Raises DataError if there are no such photos.
    """
    bundle = Bundle(folder)
    split_of_part = {part: None if all_photos else split or DEFAULT_SPLITS[part] for part in parts}
    outputs = {each: outputs_of(bundle, photos, index, each, display) for each in dict.fromkeys(split_of_part.values())}
    new_parts = {part.value: BUILDERS[part](outputs[each]) for part, each in split_of_part.items()}
    card = bundle.card.model_copy(update=new_parts)
    write_card(folder, card)
    return card


def add_self_check(folder: Path) -> Card:
    """Write a self-check into a bundle's card: the outputs of its files for a few generated images, on this machine."""
    bundle = Bundle(folder)
    variants = {
        precision: variant.model_copy(update={"self_check": self_check_of(OnnxModel(bundle.model_path(precision)))})
        for precision, variant in bundle.card.variants.items()
    }
    card = bundle.card.model_copy(update={"variants": variants})
    write_card(folder, card)
    return card


def outputs_of(bundle: Bundle, photos: Path, index: Path | None, split: Split | None, display: Display) -> ModelOutputs:
    """Run a bundle's first variant on the photos of `split` (None: all photos). Raises DataError if there are none."""
    config = bundle_data(bundle, {"photos": photos} | ({"index": index} if index else {}))
    if split is None:
        config = config.model_copy(update={"split_column": ""})
    all_photos, _, _ = read_photos(config, display)
    selected = all_photos.select(split) if split else all_photos
    if not selected:
        raise DataError(
            f"{config.labels}: no photo of the {split} split; name another with --split, or take all with --every"
        )
    model = OnnxModel.from_bundle(bundle, next(iter(bundle.card.variants)))
    what = f"counting by {bundle.card.version}"
    outputs = run(model, selected, lambda chunks: display.track(chunks, len(selected), what, len))
    return ModelOutputs(selected, split or ALL_PHOTOS, *outputs, bundle.card.answers, bundle.card.count_rule)
