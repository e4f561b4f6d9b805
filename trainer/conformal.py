"""What makes p-values of a model's probabilities: how odd the truth looked to it, on photos that nothing was fitted to.

    python -m trainer.conformal BUNDLE --photos FOLDER_OR_TAR --index CSV [--split test | --every]

writes it into the card of a bundle that is there already: one from before, or one that should know another set of
photos, such as your own bins as people audited them. The model stays as it is.

The test photos are used, not the validation photos: those chose the epoch and the temperature, so that the model looks
a little surer of them than it is.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from binwatch import command_line, conformal
from binwatch.bundle import Calibration
from binwatch.console import remark
from binwatch.counts import CLASSES, MORE, names_of
from trainer.data.split import Split
from trainer.errors import DataError
from trainer.renew import Answers, Every, Folder, Index, Photos, renew

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


def calibration_of(found: Answers) -> Calibration:
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


def _parts(calibration: Calibration) -> str:
    """Which classes are calibrated together, and with how many photos."""
    parts = (f"{names_of(part.classes)}: {len(part.either)}" for part in calibration.categories)
    return "; ".join(parts)


@app.command()
def main(
    bundle: Folder,
    photos: Photos,
    index: Index = None,
    split: Annotated[Split, typer.Option(help="Split of the data set that nothing was fitted to.")] = Split.TEST,
    every: Every = False,
) -> None:
    """Write a new calibration into a bundle's card."""
    made = renew(bundle, photos, index, None if every else split, "calibration", calibration_of)
    remark(f"{bundle}: calibrated with {made.photos} photos ({_parts(made)})")


if __name__ == "__main__":
    command_line.run(app, "trainer")
