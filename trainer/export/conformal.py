"""The calibration of p-values: a model's probabilities of the true counts, on photos that nothing was fitted to.

Test photos are used. Epoch and temperature were chosen with the validation photos, so on these the model looks a
little better than it is.
"""

from __future__ import annotations

import numpy as np

from binwatch import conformal
from binwatch.bundle import Calibration
from binwatch.counts import CLASSES, MORE_THAN_5, column_names
from trainer.errors import DataError
from trainer.export.model_outputs import ModelOutputs


def calibration_of(outputs: ModelOutputs) -> Calibration:
    """Calculate the calibration from a model's outputs. Raises DataError if no photo can be used."""
    photos, classes = outputs.photos, outputs.classes
    kept = np.arange(len(photos))
    if outputs.distribution.shape[1] > len(CLASSES):
        # The model distinguishes quantities above 5. A photo labelled "n or more" would look more plausible than it is,
        # so only exact labels are kept. If none is above 5, no other class can stand in for "more than 5".
        kept = np.flatnonzero(photos.targets >= 0)
        classes = tuple(index for index in classes if index != MORE_THAN_5 or MORE_THAN_5 in photos.labels[kept])
    if not np.isin(photos.labels[kept], classes).any():
        raise DataError(
            f"none of {len(photos)} {outputs.name} photos is labelled with a number that the model can predict"
            f" ({column_names(outputs.classes)}); name others with --split or --index"
        )
    groups = [photos.groups[position] for position in kept]
    return conformal.calibrate(
        outputs.distribution[kept], photos.quantities[kept], groups, outputs.name, answers=classes
    )


def describe(calibration: Calibration, highest: int) -> str:
    """List the categories of quantities that are calibrated together, each with its number of photos.

    `highest` is the model's highest quantity.
    """
    categories = calibration.categories
    return "; ".join(f"{column_names(each.classes, highest)}: {len(each.either)}" for each in categories)
