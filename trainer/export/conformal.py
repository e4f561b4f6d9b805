"""The calibration of p-values: the probabilities that a model gave to the truth, on photos that nothing was fitted to.

The test photos are used. Epoch and temperature were chosen by the validation photos, so on these the model's
probabilities look a little better than they are.
"""

from __future__ import annotations

import numpy as np

from binwatch import conformal
from binwatch.bundle import Calibration
from binwatch.counts import CLASSES, MORE, names_of
from trainer.errors import DataError
from trainer.export.model_outputs import ModelOutputs


def calibration_of(found: ModelOutputs) -> Calibration:
    """The calibration that follows from a model's outputs. Raises DataError if no photo can be used."""
    photos, classes = found.photos, found.classes
    kept = np.arange(len(photos))
    if found.distribution.shape[1] > len(CLASSES):
        # A photo labelled "n or more" would look less odd than it is. And if the model distinguishes numbers above 5,
        # no other class can stand in for "more than 5".
        kept = np.flatnonzero(photos.targets >= 0)
        classes = tuple(index for index in classes if index != MORE or MORE in photos.labels[kept])
    if not np.isin(photos.labels[kept], classes).any():
        raise DataError(
            f"none of {len(photos)} {found.name} photos is labelled with a number that the model can predict"
            f" ({names_of(found.classes)}); name others with --split or --index"
        )
    groups = [photos.groups[place] for place in kept]
    return conformal.calibrate(found.distribution[kept], photos.quantities[kept], groups, found.name, answers=classes)


def describe(calibration: Calibration, highest: int) -> str:
    """Which quantities are calibrated together, and with how many photos. `highest` is the model's highest quantity."""
    parts = (f"{names_of(part.classes, highest)}: {len(part.either)}" for part in calibration.categories)
    return "; ".join(parts)
