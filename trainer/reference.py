"""What the monitor compares later photos with to see drift: made from photos that the model did not learn from.

    python -m trainer.reference BUNDLE --photos FOLDER_OR_TAR --index CSV [--split validation]

writes it into the card of a bundle that is there already: one from before, or one that should know another set of
photos, since a new kind of photo is here to stay. The model stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from binwatch.bundle import Bundle, Card, Reference, write_card
from binwatch.errors import BinwatchError
from binwatch.photo_stats import PhotoStats, photo_stats
from binwatch.reference import Observed, Signal, make_reference
from trainer.config import DataConfig
from trainer.data.dataset import PhotoSet, load_photos
from trainer.data.split import Split, split_of
from trainer.runtime import OnnxModel, chunks, run

Floats = npt.NDArray[np.floating[Any]]

app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


def reference_of(probabilities: Floats, embeddings: Floats, photos: PhotoSet) -> Reference:
    """The reference of photos that the model answered with `probabilities` and `embeddings`, in their order.

    Shape and bytes of a file are left out: training photos are often squashed copies, of which both are made up. Of
    copies (PhotoSet.jpeg_quality) sharpness is left out, too: 122 originals, squashed and stored as the copies were,
    were no different in brightness, contrast and embedding, but in sharpness they were (KS distance 0.28).
    """
    stats = [photo_stats(pixels) for batch in chunks(photos) for pixels in batch]
    observed = Observed(
        probabilities=probabilities,
        labels=photos.labels,
        embeddings=embeddings,
        properties=dict(_properties(stats, are_copies=photos.jpeg_quality is not None)),
        groups=len(set(photos.groups)),
    )
    return make_reference(observed)


def _properties(stats: list[PhotoStats], *, are_copies: bool) -> Iterator[tuple[Signal, Floats]]:
    sharpness = () if are_copies else (Signal.SHARPNESS,)
    for signal in (Signal.BRIGHTNESS, Signal.CONTRAST, *sharpness):
        yield signal, np.array([getattr(found, signal.value) for found in stats])


def look(bundle: Bundle, config: DataConfig, split: Split) -> tuple[PhotoSet, Floats, Floats]:
    """The photos of one split of a data set, with the probabilities and embeddings of the bundle's first variant."""
    every, _, _ = load_photos(config.model_copy(update={"jpeg_quality": bundle.card.jpeg_quality or 0}))
    photos = every.where(lambda row: split_of(row.group, config.split_seed) is split)
    if not photos:
        raise BinwatchError(f"{config.index}: no photo of the {split} split; name another with --split")
    return photos, *run(OnnxModel(bundle.model(next(iter(bundle.card.variants)))), photos)


def rewrite(folder: Path, config: DataConfig, split: Split) -> Card:
    """Give the bundle in `folder` the reference of one split of a data set."""
    bundle = Bundle(folder)
    photos, probabilities, embeddings = look(bundle, config, split)
    card = bundle.card.model_copy(update={"reference": reference_of(probabilities, embeddings, photos)})
    write_card(folder, card)
    return card


@app.command()
def main(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    photos: Annotated[Path, typer.Option(help="Folder or tar of photos, named by their key.")],
    index: Annotated[Path, typer.Option(help="CSV with the columns key, label and bin_group.")],
    split: Annotated[Split, typer.Option(help="Part of the data set that the model did not learn from.")] = (
        Split.VALIDATION
    ),
) -> None:
    """Write a new reference into a bundle's card."""
    try:
        card = rewrite(bundle, DataConfig(photos=photos, index=index), split)
    except BinwatchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    assert card.reference is not None  # it was just made
    typer.echo(f"{bundle}: reference of {card.reference.photos} photos of {card.reference.groups} bins")


if __name__ == "__main__":
    app()
