"""What makes p-values of a model's probabilities: how odd the truth looked to it, on photos that nothing was fitted to.

The test photos are used, not the validation photos: those chose the epoch and the temperature, so that the model looks
a little surer of them than it is.
"""

from __future__ import annotations

import numpy as np

from binwatch import conformal
from binwatch.bundle import Calibration
from binwatch.counts import CLASSES, MORE, names_of
from trainer.errors import DataError
from trainer.export.model_outputs import ModelOutputs


def calibration_of(found: ModelOutputs) -> Calibration:
    """Calibration by photos as the model answered them."""
    photos, classes = found.photos, found.classes
    kept = np.arange(len(photos))
    if found.distribution.shape[1] > len(CLASSES):
        # What is labelled with the fewest items that it may show would look less odd than it is; and no other class
        # says what a photo of more than 5 looks like to a model that tells such numbers apart.
        kept = np.flatnonzero(photos.targets >= 0)
        classes = tuple(index for index in classes if index != MORE or MORE in photos.labels[kept])
    if not np.isin(photos.labels[kept], classes).any():
        raise DataError(
            f"none of {len(photos)} {found.name} photos shows what the model can answer ({names_of(found.classes)}) and"
            " is labelled with a number; name others with --split or --index"
        )
    groups = [photos.groups[place] for place in kept]
    return conformal.calibrate(found.distribution[kept], photos.quantities[kept], groups, found.name, answers=classes)


def described(calibration: Calibration, highest: int) -> str:
    """Which quantities are calibrated together, and with how many photos, of a model that tells `highest` from more."""
    parts = (f"{names_of(part.classes, highest)}: {len(part.either)}" for part in calibration.categories)
    return "; ".join(parts)
