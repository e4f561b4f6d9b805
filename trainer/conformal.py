"""What makes p-values of a model's probabilities: how sure it was of the truth, on photos that nothing was fitted to.

    python -m trainer.conformal BUNDLE --photos FOLDER_OR_TAR --index CSV [--split test]

writes it into the card of a bundle that is there already: one from before, or one that should know another set of
photos, such as your own bins as people audited them. The model stays as it is.

The test photos are used, not the validation photos: those chose the epoch and the temperature, so that the model looks
a little surer of them than it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from binwatch.bundle import Bundle, Calibration, Card, write_card
from binwatch.conformal import calibrate
from binwatch.counts import CLASSES
from binwatch.errors import BinwatchError
from trainer.config import DataConfig
from trainer.data.dataset import PhotoSet
from trainer.data.split import Split
from trainer.reference import look

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


def calibration_of(probabilities: npt.NDArray[np.floating[Any]], photos: PhotoSet, split: Split) -> Calibration:
    """Calibration by photos that the model answered with `probabilities`, shape (photos, classes), in their order."""
    return calibrate(probabilities, photos.labels, photos.groups, split.value)


def rewrite(folder: Path, config: DataConfig, split: Split) -> Card:
    """Give the bundle in `folder` the calibration of one split of a data set."""
    bundle = Bundle(folder)
    photos, probabilities, _ = look(bundle, config, split)
    card = bundle.card.model_copy(update={"calibration": calibration_of(probabilities, photos, split)})
    write_card(folder, card)
    return card


def _parts(calibration: Calibration) -> str:
    """Which classes are calibrated together, and with how many photos."""
    parts = (
        f"{', '.join(CLASSES[index] for index in part.classes)}: {len(part.scores)}" for part in calibration.categories
    )
    return "; ".join(parts)


@app.command()
def main(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    photos: Annotated[Path, typer.Option(help="Folder or tar of photos, named by their key.")],
    index: Annotated[Path, typer.Option(help="CSV with the columns key, label and bin_group.")],
    split: Annotated[Split, typer.Option(help="Part of the data set that nothing was fitted to.")] = Split.TEST,
) -> None:
    """Write a new calibration into a bundle's card."""
    try:
        card = rewrite(bundle, DataConfig(photos=photos, index=index), split)
    except BinwatchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    assert card.calibration is not None  # it was just made
    typer.echo(f"{bundle}: calibrated with {card.calibration.photos} photos ({_parts(card.calibration)})")


if __name__ == "__main__":
    app()
